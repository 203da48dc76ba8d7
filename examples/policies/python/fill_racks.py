"""Takes the host from the rack with the fewest free hosts, so that the other racks stay whole.

A policy has one class for each interface of the world `placement-policy` (policies/wit/policy.wit). Lists arrive as lists of
int; an error of a `result` is raised as `Err`. `wit_world` and `componentize_py_types` are made from the WIT while building.
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.explain import Factor, Subject, Subject_Hosts
from wit_world.exports.placement import Decision
from wit_world.imports.types import Claim, Context, Hosts, Info, Kind, Verdict

DEFAULT_LEVEL = "topology.vmetal.dev/rack"

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "level": {
            "type": "string",
            "description": "The label of the domains that are to be filled one after another.",
            "default": DEFAULT_LEVEL,
        },
    },
    "additionalProperties": False,
}


def read_level(text: str) -> str:
    """The one setting, or an error with a list of what is wrong."""
    if not text.strip():
        return DEFAULT_LEVEL
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise Err([f"settings are no JSON: {error}"]) from None
    if not isinstance(settings, dict):
        raise Err(["settings must be an object"])
    problems = [f'unknown setting "{name}", expected "level"' for name in settings if name != "level"]
    level = settings.get("level", DEFAULT_LEVEL)
    if not isinstance(level, str):
        problems.append("level must be a text")
    if problems:
        raise Err(problems)
    return level


class Racks:
    """What scores are made from: where each host is, and how many hosts may be chosen there."""

    def __init__(self, ctx: Context, hosts: Hosts) -> None:
        # The symbol that validate_settings asked for; zero where this engine has no such level.
        name = ctx.symbols[0] if ctx.symbols else 0
        levels = hosts.levels
        if name != 0 and name in levels:
            self.domains = hosts.domains[levels.index(name) :: len(levels)]
        else:
            self.domains = [0] * hosts.n
        free: dict[int, int] = {}
        for rack, gate in zip(self.domains, hosts.gate):
            if gate == 0:
                free[rack] = free.get(rack, 0) + 1
        # Hosts of which nobody knows where they are come last.
        self.scores = [-hosts.n - 1 if rack == 0 else -free.get(rack, 0) for rack in self.domains]


class Meta(exports.Meta):
    def describe(self) -> Info:
        return Info(name="fill-racks", version="0.1.0", kind=Kind.PLACEMENT, reasons=[])

    def validate_settings(self, json: str) -> list[str]:
        # The level's name comes back as the first of ctx.symbols.
        return [read_level(json)]

    def settings_schema(self) -> str:
        return json.dumps(SCHEMA)


class Placement(exports.Placement):
    def place(self, ctx: Context, claim: Claim, hosts: Hosts) -> Decision:
        scores = Racks(ctx, hosts).scores
        # The engine's own rule, if one excludes the host, is passed on.
        verdicts = [Verdict(code=gate, arg=0, score=score) for gate, score in zip(hosts.gate, scores)]
        open_rows = [row for row, gate in enumerate(hosts.gate) if gate == 0]
        if len(open_rows) < claim.count:
            return Decision(picks=[], verdicts=verdicts)
        # The best first; equal scores go by name, so that the order of rows never matters.
        open_rows.sort(key=lambda row: (-scores[row], hosts.rank[row]))
        return Decision(picks=open_rows[: claim.count], verdicts=verdicts)


class Explain(exports.Explain):
    def explain(self, ctx: Context, claim: Claim, subject: Subject, row: int) -> list[Factor]:
        if not isinstance(subject, Subject_Hosts) or row >= subject.value.n:
            return []
        racks = Racks(ctx, subject.value)
        label = "its place is not known" if racks.domains[row] == 0 else "free hosts in its domain"
        return [Factor(label=label, amount=racks.scores[row])]
