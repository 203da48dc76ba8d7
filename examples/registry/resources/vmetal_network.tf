resource "vmetal_network" "tenants" {
  name        = "tenants"
  cidr        = "10.40.0.0/22"
  ranges      = ["10.40.0.20-10.40.3.250"]
  reserved    = ["10.40.1.1"]
  gateway     = "10.40.0.1"
  nameservers = ["10.40.0.2", "10.40.0.3"]
  vlan        = 120
  mtu         = 9000
}

# Nodes of this type get an address of it, unless they or their clusters name another network.
resource "vmetal_node_type" "gpu" {
  name      = "gpu"
  selector  = { class = "gpu" }
  resources = { cpu = "64", memory = "512Gi", "nvidia.com/gpu" = "8" }
  network   = vmetal_network.tenants.name
}
