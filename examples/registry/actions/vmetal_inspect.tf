action "vmetal_inspect" "disks" {
  config {
    host   = "rack1-01"
    reason = "a disk was added"
    wait   = true
  }
}
