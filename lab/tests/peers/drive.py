"""Drives a lab BMC with sushy, the Redfish client library of OpenStack Ironic: a second opinion on our protocol.

Usage: drive.py BASE_URL USER PASSWORD   (the host must be off; it is off again at the end)
"""

import sys

import sushy
from sushy import auth

base_url, user, password = sys.argv[1:]


def expect(what, seen, wanted):
    if seen != wanted:
        sys.exit(f"FAILED: {what}: expected {wanted!r}, saw {seen!r}")
    print(f"ok: {what}: {seen!r}")


def drive(name, authentication):
    print(f"--- {name}")
    root = sushy.Sushy(base_url, auth=authentication, verify=False)
    (system,) = root.get_system_collection().get_members()
    expect("power", system.power_state, sushy.PowerState.OFF)
    allowed = system.get_allowed_reset_system_values()
    for reset in (sushy.ResetType.ON, sushy.ResetType.FORCE_OFF, sushy.ResetType.FORCE_RESTART):
        expect(f"{reset.value} is allowed", reset in allowed, True)
    expect("PXE is allowed", sushy.BootSource.PXE in system.get_allowed_system_boot_source_values(), True)

    system.set_system_boot_options(sushy.BootSource.PXE, sushy.BootSourceOverrideEnabled.ONCE)
    system.refresh()
    expect("override", (system.boot.target, system.boot.enabled), (sushy.BootSource.PXE, sushy.BootSourceOverrideEnabled.ONCE))
    system.reset_system(sushy.ResetType.ON)
    system.refresh()
    expect("power after On", system.power_state, sushy.PowerState.ON)
    expect("override after a boot", system.boot.enabled, sushy.BootSourceOverrideEnabled.DISABLED)

    expect("memory is known", system.memory_summary.size_gib > 0, True)
    expect("processors", system.processors.summary.count, 1)
    macs = system.ethernet_interfaces.summary
    expect("one card or more, each with a MAC", bool(macs) and all(macs), True)
    drives = [drive for storage in system.storage.get_members() for drive in storage.drives]
    expect("drives with size and serial", all(d.capacity_bytes and d.serial_number for d in drives) and bool(drives), True)
    expect("a manager", len(system.managers), 1)
    expect("a chassis", len(system.chassis), 1)

    try:
        system.set_system_boot_options(sushy.BootSource.FLOPPY)
        sys.exit("FAILED: an impossible boot source was accepted")
    except sushy.exceptions.SushyError as error:
        print(f"ok: impossible boot source: {error}")
    system.reset_system(sushy.ResetType.FORCE_OFF)
    system.refresh()
    expect("power after ForceOff", system.power_state, sushy.PowerState.OFF)


drive("basic authentication", auth.BasicAuth(user, password))
drive("a session", auth.SessionAuth(user, password))
try:
    sushy.Sushy(base_url, auth=auth.BasicAuth(user, "wrong"), verify=False).get_system_collection()
    sys.exit("FAILED: a wrong password was accepted")
except sushy.exceptions.AccessError:
    print("ok: a wrong password is refused")
print("PASSED")
