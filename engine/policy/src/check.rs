//! No answer of a policy is believed unseen.

use std::collections::HashSet;

use vmetal_policy_sdk::{Choice, Decision, Info, Verdict, gate};

use crate::error::OutputError;

/// What an answer is held against.
pub(crate) struct Expected<'a, Name: Fn(u32) -> String, Why: Fn(u32) -> String> {
    /// Zero, or the rule that excludes the row.
    pub(crate) gate: &'a [u32],
    pub(crate) wanted: u32,
    pub(crate) info: &'a Info,
    /// For messages: a row's name and the rule that excludes it.
    pub(crate) name: Name,
    pub(crate) why: Why,
}

impl<Name: Fn(u32) -> String, Why: Fn(u32) -> String> Expected<'_, Name, Why> {
    pub(crate) fn choice(&self, choice: &Choice) -> Result<(), OutputError> {
        let rows = self.gate.len();
        if choice.prices.len() != rows {
            return Err(OutputError::PriceCount { seen: choice.prices.len(), rows });
        }
        if let Some((row, micro)) = (0u32..).zip(&choice.prices).find(|(_, micro)| **micro < 0) {
            return Err(OutputError::NegativePrice { name: (self.name)(row), micro: *micro });
        }
        self.verdicts(&choice.verdicts)?;
        self.picks(choice.pick.as_slice(), &choice.verdicts, 1)
    }

    pub(crate) fn decision(&self, decision: &Decision) -> Result<(), OutputError> {
        self.verdicts(&decision.verdicts)?;
        self.picks(&decision.picks, &decision.verdicts, self.wanted as usize)
    }

    fn verdicts(&self, verdicts: &[Verdict]) -> Result<(), OutputError> {
        let rows = self.gate.len();
        if verdicts.len() != rows {
            return Err(OutputError::VerdictCount { seen: verdicts.len(), rows });
        }
        for (row, (verdict, excluded)) in (0u32..).zip(verdicts.iter().zip(self.gate)) {
            let name = || (self.name)(row);
            match (verdict.code, *excluded) {
                (gate::OPEN, gate::OPEN) => {}
                (gate::OPEN, _) => return Err(OutputError::GateIgnored { name: name(), reason: (self.why)(row) }),
                (code, excluded) if code == excluded => {}
                (code, _) if self.info.reasons.iter().any(|reason| reason.code == code) => {}
                (code, _) => return Err(OutputError::UnknownCode { name: name(), code }),
            }
        }
        Ok(())
    }

    fn picks(&self, picks: &[u32], verdicts: &[Verdict], wanted: usize) -> Result<(), OutputError> {
        let rows = self.gate.len();
        let mut seen = HashSet::new();
        for row in picks {
            let (Some(excluded), Some(verdict)) = (self.gate.get(*row as usize), verdicts.get(*row as usize)) else {
                return Err(OutputError::RowOutOfRange { row: *row, rows });
            };
            if *excluded != gate::OPEN {
                return Err(OutputError::InfeasiblePick { name: (self.name)(*row), reason: (self.why)(*row) });
            }
            if verdict.code != gate::OPEN {
                return Err(OutputError::ContradictoryPick { name: (self.name)(*row), code: verdict.code });
            }
            if !seen.insert(*row) {
                return Err(OutputError::Duplicate { name: (self.name)(*row) });
            }
        }
        if picks.is_empty() {
            let feasible = verdicts.iter().filter(|verdict| verdict.code == gate::OPEN).count();
            return if wanted > 0 && feasible >= wanted {
                Err(OutputError::NothingChosen { feasible, wanted })
            } else {
                Ok(())
            };
        }
        if picks.len() != wanted {
            return Err(OutputError::PickCount { seen: picks.len(), wanted });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmetal_policy_sdk::{Arg, Kind, Reason};

    fn verdict(code: u32) -> Verdict {
        Verdict { code, ..Verdict::default() }
    }

    fn check(picks: &[u32], codes: &[u32], wanted: u32) -> Result<(), OutputError> {
        let reasons = vec![Reason { code: 1000, text: String::new(), arg: Arg::None }];
        let info = Info { name: String::new(), version: String::new(), kind: Kind::Placement, reasons };
        let gate = [0, 0, gate::CLAIMED, 0];
        let expected =
            Expected { gate: &gate, wanted, info: &info, name: |row| format!("h{row}"), why: |_| "claimed".to_owned() };
        expected.decision(&Decision { picks: picks.to_vec(), verdicts: codes.iter().copied().map(verdict).collect() })
    }

    #[test]
    fn honest_answers_pass() {
        assert_eq!(check(&[3, 0], &[0, 0, 2, 0], 2), Ok(()));
        assert_eq!(check(&[], &[0, 1000, 2, 1000], 2), Ok(()));
        assert_eq!(check(&[0], &[0, 1000, 1000, 0], 1), Ok(()));
    }

    #[test]
    fn every_lie_has_its_name() {
        let name = |row: u32| format!("h{row}");
        let reason = || "claimed".to_owned();
        assert_eq!(check(&[4], &[0, 0, 2, 0], 1), Err(OutputError::RowOutOfRange { row: 4, rows: 4 }));
        assert_eq!(check(&[0, 0], &[0, 0, 2, 0], 2), Err(OutputError::Duplicate { name: name(0) }));
        assert_eq!(check(&[2], &[0, 0, 2, 0], 1), Err(OutputError::InfeasiblePick { name: name(2), reason: reason() }));
        assert_eq!(check(&[1], &[0, 1000, 2, 0], 1), Err(OutputError::ContradictoryPick { name: name(1), code: 1000 }));
        assert_eq!(check(&[0], &[0, 0, 2], 1), Err(OutputError::VerdictCount { seen: 3, rows: 4 }));
        assert_eq!(check(&[0], &[0, 0, 2, 0], 2), Err(OutputError::PickCount { seen: 1, wanted: 2 }));
        assert_eq!(check(&[], &[0, 0, 2, 0], 2), Err(OutputError::NothingChosen { feasible: 3, wanted: 2 }));
        assert_eq!(check(&[0], &[0, 0, 0, 0], 1), Err(OutputError::GateIgnored { name: name(2), reason: reason() }));
        assert_eq!(check(&[0], &[0, 7, 2, 0], 1), Err(OutputError::UnknownCode { name: name(1), code: 7 }));
        assert_eq!(check(&[0], &[0, 1001, 2, 0], 1), Err(OutputError::UnknownCode { name: name(1), code: 1001 }));
    }

    #[test]
    fn prices_are_counted_and_not_negative() {
        let info = Info { name: String::new(), version: String::new(), kind: Kind::Cost, reasons: vec![] };
        let expected =
            Expected { gate: &[0, 0], wanted: 1, info: &info, name: |r| format!("t{r}"), why: |_| String::new() };
        let choice = |prices: &[i64]| Choice { pick: Some(0), prices: prices.to_vec(), verdicts: vec![verdict(0); 2] };
        assert_eq!(expected.choice(&choice(&[1, 2])), Ok(()));
        assert_eq!(expected.choice(&choice(&[1])), Err(OutputError::PriceCount { seen: 1, rows: 2 }));
        let negative = OutputError::NegativePrice { name: "t1".to_owned(), micro: -1 };
        assert_eq!(expected.choice(&choice(&[1, -1])), Err(negative));
    }
}
