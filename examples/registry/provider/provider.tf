terraform {
  required_providers {
    vmetal = {
      source = "vmetal/vmetal"
    }
  }
}

provider "vmetal" {
  endpoint   = "http://127.0.0.1:7600"
  token_file = "/var/lib/vmetal/admin.token"
}
