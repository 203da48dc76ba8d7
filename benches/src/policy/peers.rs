//! The peers at work: the same policy as a core module that takes JSON, and as a component that is called for each host. Their
//! sandboxes are set up as ours is: a pool, fuel, epochs, and a fresh instance for each decision.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use policy_peers::json::{Answer, Host as JsonHost, Question as JsonQuestion};
use vmetal_policy::{Question, componentize};
use vmetal_policy_sdk::{Decision, Verdict};
use wasmtime::component::{Component, Linker as ComponentLinker};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, InstancePre, Linker, Memory, Module, PoolingAllocationConfig,
    Store,
};

wasmtime::component::bindgen!({
    path: "peers/wit",
    world: "per-host",
});

use exports::vmetal::bench_peer::scoring;

/// Fuel of a decision: what ours may use over 10,000 hosts, a hundredfold, so that no peer is stopped by it.
const FUEL: u64 = 10_000_000_000;

/// Both peers, ready to decide.
pub(super) struct Peers {
    engine: Engine,
    json: InstancePre<()>,
    each: PerHostPre<()>,
}

impl Peers {
    /// Builds and loads them.
    ///
    /// # Errors
    /// When cargo or the compiler refuses.
    pub(super) fn new() -> Result<Self> {
        let module = componentize::module(Path::new("benches/peers"))?;
        let bytes = std::fs::read(&module).with_context(|| format!("cannot read {}", module.display()))?;
        let mut pool = PoolingAllocationConfig::new();
        pool.max_memory_size(1 << 30).linear_memory_keep_resident(4 << 20).total_component_instances(4);
        pool.pagemap_scan(Enabled::Auto);
        let mut config = Config::new();
        config
            .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
            .consume_fuel(true)
            .epoch_interruption(true)
            .cranelift_nan_canonicalization(true)
            .wasm_relaxed_simd(false);
        let engine = Engine::new(&config)?;
        let module = Module::new(&engine, &bytes)?;
        let json = Linker::new(&engine).instantiate_pre(&module)?;
        let encoded = componentize::encode(&bytes).map_err(|error| anyhow!("the peer is no component: {error}"))?;
        let component = Component::new(&engine, encoded)?;
        let each = PerHostPre::new(ComponentLinker::new(&engine).instantiate_pre(&component)?)?;
        Ok(Peers { engine, json, each })
    }

    fn store(&self) -> Result<Store<()>> {
        let mut store = Store::new(&self.engine, ());
        store.set_fuel(FUEL)?;
        store.set_epoch_deadline(u64::MAX / 2);
        Ok(store)
    }

    /// One decision by JSON: written, taken in, answered, read.
    pub(super) fn json(&self, question: &JsonQuestion<'_>) -> Result<Decision> {
        let text = serde_json::to_vec(question)?;
        let mut store = self.store()?;
        let instance = self.json.instantiate(&mut store)?;
        let memory: Memory = instance.get_memory(&mut store, "memory").context("the peer has no memory")?;
        let room = instance.get_typed_func::<u32, u32>(&mut store, "json_room")?;
        let place = instance.get_typed_func::<(u32, u32), u64>(&mut store, "json_place")?;
        let length = u32::try_from(text.len())?;
        let at = room.call(&mut store, length)?;
        memory.write(&mut store, usize::try_from(at)?, &text)?;
        let answer = place.call(&mut store, (at, length))?;
        let (from, length) = (usize::try_from(answer >> 32)?, usize::try_from(answer & 0xffff_ffff)?);
        let text = memory.data(&store).get(from..from + length).context("the peer's answer is outside its memory")?;
        let answer: Answer = serde_json::from_slice(text)?;
        ensure!(answer.verdicts.len() == question.hosts.len(), "the peer could not read its question");
        let verdict = |v: policy_peers::json::Verdict| Verdict { code: v.code, arg: v.arg, score: v.score };
        Ok(Decision { picks: answer.picks, verdicts: answer.verdicts.into_iter().map(verdict).collect() })
    }

    /// One decision by a call for each host; the best is picked here.
    pub(super) fn each(&self, now: u64, hosts: &[scoring::Host]) -> Result<Decision> {
        let mut store = self.store()?;
        let instance = self.each.instantiate(&mut store)?;
        let guest = instance.vmetal_bench_peer_scoring();
        let mut verdicts = Vec::with_capacity(hosts.len());
        for host in hosts {
            let scoring::Verdict { code, arg, score } = guest.call_score(&mut store, now, host)?;
            verdicts.push(Verdict { code, arg, score });
        }
        let open = (0u32..).zip(verdicts.iter().zip(hosts)).filter(|(_, (verdict, _))| verdict.code == 0);
        let best = open.max_by_key(|(_, (verdict, host))| (verdict.score, std::cmp::Reverse(host.rank)));
        Ok(Decision { picks: best.map(|(row, _)| row).into_iter().collect(), verdicts })
    }
}

/// How many free hosts a claim for one leaves over beside each host, or 65 where it has no room: what the peers are handed
/// ready-made.
fn misfits(question: &Question<'_>) -> Vec<u32> {
    let hosts = question.hosts();
    let narrowest = |row: vmetal_policy_sdk::HostRef<'_>| {
        (0..hosts.levels.len()).rev().map(|level| row.domain(level)).find(|domain| *domain != 0).unwrap_or(0)
    };
    let free = vmetal_policy_sdk::Tally::of(hosts, narrowest, |host| host.is_open() && host.failures() == 0);
    let misfit = |domain| match (domain, free.get(domain)) {
        (0, _) => 0,
        (_, 0) => 65,
        (_, free) => (free - 1).min(64),
    };
    hosts.rows().map(|row| misfit(narrowest(row))).collect()
}

/// The question as the JSON peer is asked it.
pub(super) fn as_json<'a>(question: &'a Question<'_>, now: u64) -> JsonQuestion<'a> {
    let (table, misfits) = (question.hosts(), misfits(question));
    let text = |sym| question.text(sym).into();
    let host = |(row, misfit): (vmetal_policy_sdk::HostRef<'_>, u32)| JsonHost {
        name: text(row.name()),
        gate: row.gate(),
        cpu_milli: row.cpu_milli(),
        memory_bytes: row.memory_bytes(),
        gpus: row.gpus(),
        gpu_model: text(row.gpu_model()),
        last_tenant: text(row.last_tenant()),
        last_release: row.last_release(),
        provisions: row.provisions(),
        domains: (0..table.levels.len()).map(|level| (text(table.levels[level]), text(row.domain(level)))).collect(),
        power: row.power(),
        erase_level: row.erase_level(),
        failures: row.failures(),
        misfit,
    };
    JsonQuestion { now, count: 1, hosts: table.rows().zip(misfits).map(host).collect() }
}

/// The hosts as the other peer is asked about them.
pub(super) fn one_by_one(question: &Question<'_>) -> Vec<scoring::Host> {
    let (table, misfits) = (question.hosts(), misfits(question));
    let text = |sym| question.text(sym).to_owned();
    let host = |(row, misfit): (vmetal_policy_sdk::HostRef<'_>, u32)| scoring::Host {
        name: text(row.name()),
        rank: row.rank(),
        gate: row.gate(),
        cpu_milli: row.cpu_milli(),
        memory_bytes: row.memory_bytes(),
        gpus: row.gpus(),
        gpu_model: text(row.gpu_model()),
        last_tenant: text(row.last_tenant()),
        last_release: row.last_release(),
        provisions: row.provisions(),
        domains: (0..table.levels.len()).map(|level| text(row.domain(level))).collect(),
        power: row.power(),
        erase_level: row.erase_level(),
        failures: row.failures(),
        misfit,
    };
    table.rows().zip(misfits).map(host).collect()
}
