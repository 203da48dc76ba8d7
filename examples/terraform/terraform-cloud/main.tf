# A workspace of HCP Terraform (or Terraform Enterprise) that holds no token of the engine: each run shows who it is. The
# engine's side, [[oidc]] in its configuration, is in vmetald-oidc.toml. In the workspace, set
#   TFC_WORKLOAD_IDENTITY_AUDIENCE_VMETAL = vmetal            (environment variable)
#   endpoint, bmc_passwords                                   (Terraform variables; the passwords sensitive)

terraform {
  required_version = ">= 1.11"

  cloud {
    organization = "acme"
    workspaces {
      name = "racks"
    }
  }

  required_providers {
    vmetal = {
      source  = "vmetal/vmetal"
      version = "~> 0.1"
    }
  }
}

variable "endpoint" {
  description = "Where the engine is, as HCP Terraform or your agents reach it: https://HOST:PORT."
  type        = string
}

variable "bmc_passwords" {
  description = "The BMC passwords, by host. They reach the engine and are kept neither in plans nor in the state."
  type        = map(string)
  ephemeral   = true
}

# No token: TFC_WORKLOAD_IDENTITY_TOKEN_VMETAL is exchanged for one, which is renewed while a long apply waits.
provider "vmetal" {
  endpoint = var.endpoint
  ca_file  = "${path.module}/vmetal-ca.pem"
}

locals {
  hosts = {
    rack1-01 = { bmc = "10.10.0.1", mac = "b4:96:91:00:00:01" }
    rack1-02 = { bmc = "10.10.0.2", mac = "b4:96:91:00:00:02" }
  }
}

resource "vmetal_host" "rack1" {
  for_each = local.hosts

  name     = each.key
  boot_mac = each.value.mac
  labels   = { class = "small", rack = "r1" }

  # Inspection takes minutes; it goes on after the run.
  wait_for = "registered"

  bmc = {
    address             = "redfish://${each.value.bmc}"
    username            = "vmetal"
    password_wo         = var.bmc_passwords[each.key]
    password_wo_version = "1"
  }
}
