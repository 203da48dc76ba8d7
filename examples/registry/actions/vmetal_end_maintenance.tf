action "vmetal_end_maintenance" "dimms" {
  config {
    host = "rack1-01"
    wait = true
  }
}
