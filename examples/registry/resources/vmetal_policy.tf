resource "vmetal_policy" "placement" {
  name       = "placement"
  kind       = "placement"
  source     = "policies/place-mine.wasm"
  settings   = jsonencode({ most_failures = 1 })
  on_failure = "closed"
}
