variable "bmc_password" {
  type      = string
  sensitive = true
}

resource "vmetal_host" "rack1_01" {
  name = "rack1-01"
  bmc = {
    address             = "redfish://10.0.1.1"
    username            = "admin"
    password_wo         = var.bmc_password
    password_wo_version = 1
  }
  boot_mac    = "52:54:00:aa:00:01"
  labels      = { class = "small", rack = "r1" }
  root_device = { min_size_gib = 200, rotational = false }
}
