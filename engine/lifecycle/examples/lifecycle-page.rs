//! Prints `docs/lifecycle.md`.

fn main() {
    print!("{}", vmetal_lifecycle::transitions::page());
}
