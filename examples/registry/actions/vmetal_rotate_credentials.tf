variable "bmc_password" {
  type      = string
  sensitive = true
}

action "vmetal_rotate_credentials" "leaver" {
  config {
    host     = "rack1-01"
    password = var.bmc_password
    reason   = "somebody left the team"
    wait     = true
  }
}
