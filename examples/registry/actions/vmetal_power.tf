action "vmetal_power" "cycle" {
  config {
    host   = "rack1-01"
    power  = "cycle"
    reason = "the console hangs"
    wait   = true
  }
}
