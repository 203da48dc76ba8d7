# Two servers, two node types, one node of a Kubernetes cluster. The node says what it needs, not where it runs: the engine
# chooses the cheapest type that fits, and a free server of that type.

terraform {
  required_version = ">= 1.11"
  required_providers {
    vmetal = {
      source  = "vmetal/vmetal"
      version = "~> 0.1"
    }
  }
}

# Where the engine is and the token for it come from VMETAL_ENDPOINT and VMETAL_TOKEN_FILE.
provider "vmetal" {}

resource "vmetal_host" "server" {
  for_each = var.servers

  name      = each.key
  boot_mac  = each.value.boot_mac
  boot_mode = each.value.firmware

  bmc = {
    address             = each.value.bmc_address
    username            = each.value.bmc_username
    password_wo         = var.bmc_passwords[each.key]
    password_wo_version = "1"
    tls_fingerprint     = each.value.bmc_certificate_sha256
  }

  labels = { size = each.value.size }
}

resource "vmetal_image" "debian" {
  name   = "debian-kubernetes"
  source = var.node_image
}

resource "vmetal_node_type" "small" {
  name      = "small"
  selector  = { size = "small" }
  resources = { cpu = "1", memory = "1536Mi" }
  image     = vmetal_image.debian.name
}

resource "vmetal_node_type" "large" {
  name      = "large"
  selector  = { size = "large" }
  resources = { cpu = "2", memory = "3584Mi" }
  image     = vmetal_image.debian.name
}

resource "vmetal_tenant_cluster" "demo" {
  name                  = "demo"
  kubeconfig_wo         = file(var.kubeconfig_file)
  kubeconfig_wo_version = "1"
}

resource "vmetal_tenant_node" "worker" {
  name      = "worker-1"
  cluster   = vmetal_tenant_cluster.demo.name
  resources = { cpu = "1", memory = "1Gi" }
  labels    = { "vmetal.dev/pool" = "quickstart" }

  # Both types must be there, and their servers in the pool, before the choice is made.
  depends_on = [vmetal_host.server, vmetal_node_type.small, vmetal_node_type.large]
}
