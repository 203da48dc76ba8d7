// Takes the host from the rack with the fewest free hosts, so that the other racks stay whole.
//
// A policy exports one object for each interface of the world `placement-policy` (policies/wit/policy.wit). Lists of u32
// arrive as Uint32Array, lists of u64 as BigUint64Array; an s64 is a BigInt. An error of a `result` is thrown.

const DEFAULTS = { level: "topology.vmetal.dev/rack" };

const SCHEMA = {
  $schema: "https://json-schema.org/draft/2020-12/schema",
  type: "object",
  properties: {
    level: {
      type: "string",
      description: "The label of the domains that are to be filled one after another.",
      default: DEFAULTS.level,
    },
  },
  additionalProperties: false,
};

/** What is wrong with settings, as a list of messages; they are thrown. */
function readSettings(json) {
  if (json.trim() === "") return DEFAULTS;
  let settings;
  try {
    settings = JSON.parse(json);
  } catch (error) {
    throw [`settings are no JSON: ${error.message}`];
  }
  if (settings === null || typeof settings !== "object" || Array.isArray(settings)) {
    throw ["settings must be an object"];
  }
  const problems = Object.keys(settings)
    .filter((name) => !Object.hasOwn(SCHEMA.properties, name))
    .map((name) => `unknown setting ${JSON.stringify(name)}, expected "level"`);
  if (Object.hasOwn(settings, "level") && typeof settings.level !== "string") problems.push("level must be a text");
  if (problems.length > 0) throw problems;
  return { ...DEFAULTS, ...settings };
}

/** What scores are made from: where each host is, and how many hosts may be chosen there. */
class Racks {
  constructor(ctx, hosts) {
    this.hosts = hosts;
    // The symbol that validateSettings asked for; zero where this engine has no such level.
    const name = ctx.symbols[0] ?? 0;
    this.level = name === 0 ? -1 : hosts.levels.indexOf(name);
    this.free = new Map();
    for (let row = 0; row < hosts.n; row++) {
      const rack = this.domain(row);
      if (rack !== 0 && hosts.gate[row] === 0) this.free.set(rack, (this.free.get(rack) ?? 0) + 1);
    }
  }

  domain(row) {
    return this.level < 0 ? 0 : this.hosts.domains[row * this.hosts.levels.length + this.level];
  }

  /** The score. Hosts of which nobody knows where they are come last. */
  score(row) {
    const rack = this.domain(row);
    return rack === 0 ? -this.hosts.n - 1 : -(this.free.get(rack) ?? 0);
  }
}

export const meta = {
  describe: () => ({ name: "fill-racks", version: "0.1.0", kind: "placement", reasons: [] }),
  // The level's name comes back as the first of ctx.symbols.
  validateSettings: (json) => [readSettings(json).level],
  settingsSchema: () => JSON.stringify(SCHEMA),
};

export const placement = {
  place(ctx, claim, hosts) {
    const racks = new Racks(ctx, hosts);
    const scores = Array.from(hosts.gate, (_, row) => racks.score(row));
    // The engine's own rule, if one excludes the host, is passed on.
    const verdicts = scores.map((score, row) => ({ code: hosts.gate[row], arg: 0, score: BigInt(score) }));
    const open = scores.map((_, row) => row).filter((row) => hosts.gate[row] === 0);
    if (open.length < claim.count) return { picks: [], verdicts };
    // The best first; equal scores go by name, so that the order of rows never matters.
    open.sort((a, b) => scores[b] - scores[a] || hosts.rank[a] - hosts.rank[b]);
    return { picks: open.slice(0, claim.count), verdicts };
  },
};

export const explain = {
  explain(ctx, _claim, subject, row) {
    if (subject.tag !== "hosts" || row >= subject.val.n) return [];
    const racks = new Racks(ctx, subject.val);
    const label = racks.domain(row) === 0 ? "its place is not known" : "free hosts in its domain";
    return [{ label, amount: BigInt(racks.score(row)) }];
  },
};
