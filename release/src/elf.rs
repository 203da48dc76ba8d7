//! What kind of program a file is, as far as a release has to know: which processor, and whether it runs by itself.
//!
//! Terraform runs providers on machines where nobody can install a library (HCP Terraform is one), so a released program
//! must need none. A program that needs the dynamic loader names it in a program header of type `PT_INTERP` (System V ABI,
//! chapter 5).

const PT_INTERP: u32 = 3;
const EM_X86_64: u16 = 62;
const EM_AARCH64: u16 = 183;

/// The processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// x86-64.
    Amd64,
    /// AArch64.
    Arm64,
    /// Another one: ELF's number for it.
    Other(u16),
}

/// Whether a program runs by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Linkage {
    /// It needs no library.
    Static,
    /// It needs this loader, and libraries with it.
    Dynamic(String),
}

/// What a file's headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The processor.
    pub machine: Machine,
    /// Whether it runs by itself.
    pub linkage: Linkage,
}

/// Reads the headers of a 64-bit little-endian ELF file; `None` for anything else and for a damaged one.
pub fn program(file: &[u8]) -> Option<Program> {
    if file.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let machine = match u16::from_le_bytes(array(file, 18)?) {
        EM_X86_64 => Machine::Amd64,
        EM_AARCH64 => Machine::Arm64,
        other => Machine::Other(other),
    };
    let table = usize::try_from(u64::from_le_bytes(array(file, 32)?)).ok()?;
    let size = usize::from(u16::from_le_bytes(array(file, 54)?));
    let count = usize::from(u16::from_le_bytes(array(file, 56)?));
    let mut linkage = Linkage::Static;
    for index in 0..count {
        let header = table.checked_add(index.checked_mul(size)?)?;
        if u32::from_le_bytes(array(file, header)?) == PT_INTERP {
            let offset = usize::try_from(u64::from_le_bytes(array(file, header.checked_add(8)?)?)).ok()?;
            let length = usize::try_from(u64::from_le_bytes(array(file, header.checked_add(32)?)?)).ok()?;
            let name = file.get(offset..offset.checked_add(length)?)?;
            let name = name.split(|byte| *byte == 0).next()?;
            linkage = Linkage::Dynamic(String::from_utf8_lossy(name).into_owned());
        }
    }
    Some(Program { machine, linkage })
}

fn array<const N: usize>(file: &[u8], at: usize) -> Option<[u8; N]> {
    file.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_test_is_a_program_of_this_machine() {
        let program = program(&std::fs::read(std::env::current_exe().unwrap()).unwrap()).unwrap();
        let here = if cfg!(target_arch = "aarch64") { Machine::Arm64 } else { Machine::Amd64 };
        assert_eq!(program.machine, here);
        assert!(matches!(&program.linkage, Linkage::Dynamic(loader) if loader.contains("ld-")), "{program:?}");
    }

    #[test]
    fn what_is_no_program_or_cut_off_is_none() {
        assert_eq!(program(b""), None);
        assert_eq!(program(b"#!/bin/sh\n"), None);
        let whole = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for length in [4, 20, 63, 100] {
            assert_eq!(program(&whole[..length]), None, "{length}");
        }
    }
}
