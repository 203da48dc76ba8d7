ephemeral "vmetal_api_token" "inventory" {
  role   = "reader"
  reason = "the inventory export"
}

# Handed on to where it is not kept: another provider's configuration, a write-only attribute, or a provisioner.
provider "vmetal" {
  alias = "looks_only"
  token = ephemeral.vmetal_api_token.inventory.token
}

data "vmetal_hosts" "all" {
  provider = vmetal.looks_only
}
