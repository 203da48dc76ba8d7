//! What is known about particular BMCs. One named predicate per observed defect, with where it was observed; code asks
//! the predicate and never the vendor. A predicate that nobody can justify any more is deleted.

use vmetal_model::BmcFacts;

fn made_by(facts: &BmcFacts, vendor: &str) -> bool {
    facts.manufacturer.as_deref().is_some_and(|m| m.to_ascii_lowercase().contains(vendor))
}

/// Supermicro falls back to the default boot mode when a boot override is written without
/// `BootSourceOverrideMode` (Redfishtool issue 106): the mode is sent even where the system does not show one.
pub fn boot_mode_is_forgotten_unless_sent(facts: &BmcFacts) -> bool {
    made_by(facts, "supermicro") || made_by(facts, "super micro")
}

/// iDRAC answers 503 with message RAC0218 when its few sessions are used up, often by other tools (check_redfish issue
/// 89). Asking again soon makes it worse: it is left alone for longer than a busy BMC that says nothing.
pub fn sessions_are_used_up(said: &str) -> bool {
    said.contains("RAC0218")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vendors_are_recognised_as_they_spell_themselves() {
        let facts = |manufacturer: &str| BmcFacts { manufacturer: Some(manufacturer.into()), ..BmcFacts::default() };
        assert!(boot_mode_is_forgotten_unless_sent(&facts("Supermicro")));
        assert!(boot_mode_is_forgotten_unless_sent(&facts("Super Micro Computer")));
        assert!(!boot_mode_is_forgotten_unless_sent(&facts("Dell Inc.")));
        assert!(!boot_mode_is_forgotten_unless_sent(&BmcFacts::default()));
    }
}
