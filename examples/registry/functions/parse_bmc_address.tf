output "origin" {
  value = provider::vmetal::parse_bmc_address("redfish://10.0.1.1/redfish/v1/Systems/1").origin
}
