action "vmetal_set_maintenance" "dimms" {
  config {
    host   = "rack1-01"
    reason = "two DIMMs are replaced"
    until  = "2030-01-01T18:00:00Z"
  }
}
