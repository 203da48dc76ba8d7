data "vmetal_hosts" "rack1" {
  labels = { rack = "r1" }
}

output "serials" {
  value = { for host in data.vmetal_hosts.rack1.items : host.name => try(host.inventory.serial, null) }
}
