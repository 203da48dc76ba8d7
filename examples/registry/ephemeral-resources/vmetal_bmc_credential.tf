ephemeral "vmetal_bmc_credential" "node" {
  host   = "rack1-01"
  reason = "firmware settings with another provider"
}
