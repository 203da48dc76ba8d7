data "vmetal_events" "rack1_01" {
  kind  = "host"
  name  = "rack1-01"
  limit = 20
}
