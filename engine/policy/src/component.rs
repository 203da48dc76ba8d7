//! Policies as WebAssembly components: checked, compiled once, instantiated for each call.

pub(crate) mod bindings;
pub(crate) mod cache;
pub(crate) mod sandbox;
pub(crate) mod scan;

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use vmetal_policy_sdk as sdk;
use wasmtime::component::InstancePre;

use crate::error::{Cause, LoadError, RunError};
use crate::seat::Seat;
use bindings::common::PolicyIndices;
use bindings::common::exports::vmetal::policy::explain::Subject;
use bindings::common::vmetal::policy::types as wit;
use sandbox::{Allowance, Guest, Limits, Sandbox, Usage};

/// SHA-256 in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Compiles a component into a directory of compiled ones: what the program does that [`cache::Compiler::Program`] names.
///
/// # Errors
/// When it is not a component, or the directory cannot be written to.
pub fn compile_into(directory: &Path, bytes: &[u8]) -> Result<(), Cause> {
    let engine = sandbox::compiler(&Limits::default())?;
    let kept = cache::Kept { directory: directory.to_owned(), compiler: cache::Compiler::Here };
    Ok(cache::Cache::new(kept, &engine).compile(&engine, &sha256(bytes), bytes).map(drop)?)
}

/// A component that passed every check and is ready to be called.
pub(crate) struct Loaded<S: Seat> {
    sandbox: Arc<Sandbox>,
    pre: InstancePre<Guest>,
    common: PolicyIndices,
    seat: S::Indices,
    allowance: Allowance,
    /// The cases that it brings.
    pub(crate) cases: Option<String>,
}

impl<S: Seat> Loaded<S> {
    /// Scans, compiles and links; runs nothing of the policy yet.
    pub(crate) fn new(sandbox: Arc<Sandbox>, policy: &str, bytes: &[u8], sha256: &str) -> Result<Self, LoadError> {
        let cases = scan::scan(policy, bytes, S::KIND)?;
        let compile = |error: wasmtime::Error| LoadError::Compile { policy: policy.to_owned(), source: error.into() };
        let component = sandbox.compiled(sha256, bytes).map_err(compile)?;
        let pre = sandbox.linker.instantiate_pre(&component).map_err(compile)?;
        let common = PolicyIndices::new(&pre).map_err(compile)?;
        let seat = S::indices(&pre).map_err(compile)?;
        let allowance = sandbox.limits.allowance(bytes.len());
        Ok(Loaded { sandbox, pre, common, seat, allowance, cases })
    }

    pub(crate) fn describe(&self) -> Result<sdk::Info, RunError> {
        let (info, _) = self.sandbox.run(self.allowance, 0, |store| {
            let instance = self.pre.instantiate(&mut *store)?;
            self.common.load(&mut *store, &instance)?.vmetal_policy_meta().call_describe(store)
        })?;
        Ok(bindings::info(info))
    }

    pub(crate) fn validate_settings(&self, settings: &str) -> Result<Result<Vec<String>, Vec<String>>, RunError> {
        let (answer, _) = self.sandbox.run(self.allowance, 0, |store| {
            let instance = self.pre.instantiate(&mut *store)?;
            self.common.load(&mut *store, &instance)?.vmetal_policy_meta().call_validate_settings(store, settings)
        })?;
        Ok(answer)
    }

    pub(crate) fn settings_schema(&self) -> Result<String, RunError> {
        let (schema, _) = self.sandbox.run(self.allowance, 0, |store| {
            let instance = self.pre.instantiate(&mut *store)?;
            self.common.load(&mut *store, &instance)?.vmetal_policy_meta().call_settings_schema(store)
        })?;
        Ok(schema)
    }

    pub(crate) fn answer(
        &self,
        ctx: &sdk::Context,
        claim: &sdk::Claim,
        table: &S::Table<'_>,
    ) -> Result<(S::Answer, Usage), RunError> {
        let claim = bindings::Lowered::new(claim);
        let extra = bindings::extra(S::extra(table));
        self.sandbox.run(self.allowance, S::rows(table), |store| {
            let instance = self.pre.instantiate(&mut *store)?;
            S::call(&self.seat, store, &instance, bindings::context(ctx), claim.lend(), S::lend(table, &extra))
        })
    }

    pub(crate) fn explain(
        &self,
        ctx: &sdk::Context,
        claim: &sdk::Claim,
        table: &S::Table<'_>,
        row: u32,
    ) -> Result<Vec<sdk::Factor>, RunError> {
        let claim = bindings::Lowered::new(claim);
        let extra: Vec<wit::Column<'_>> = bindings::extra(S::extra(table));
        let (factors, _) = self.sandbox.run(self.allowance, S::rows(table), |store| {
            let instance = self.pre.instantiate(&mut *store)?;
            let subject: Subject<'_> = S::subject(S::lend(table, &extra));
            let common = self.common.load(&mut *store, &instance)?;
            common.vmetal_policy_explain().call_explain(store, bindings::context(ctx), claim.lend(), subject, row)
        })?;
        Ok(factors.into_iter().map(|factor| sdk::Factor::new(factor.label, factor.amount)).collect())
    }
}
