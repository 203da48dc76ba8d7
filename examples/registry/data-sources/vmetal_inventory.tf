data "vmetal_inventory" "node" {
  host = "rack1-01"
}

output "gpus" {
  value = length(data.vmetal_inventory.node.accelerators)
}
