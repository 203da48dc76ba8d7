action "vmetal_release_from_quarantine" "board" {
  config {
    host   = "rack1-01"
    reason = "the mainboard was replaced"
    wait   = true
  }
}
