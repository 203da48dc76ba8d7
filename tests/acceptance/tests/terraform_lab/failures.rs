//! What can be wrong, and what terraform says then. Each case in a configuration of its own, side by side, and all on one stack
//! but those that end by a deadline: a short one is for them alone.

use std::collections::BTreeMap;

use serde_json::json;
use vmetal_acceptance::installer::{NetworkBoot, System, disk};
use vmetal_acceptance::{Behaviour, Deed, Options, Place, Software, Stack};
use vmetal_agent::error::AgentError;
use vmetal_agent::root_device;
use vmetal_model::agent::{AgentFailure, BootPurpose};
use vmetal_model::inventory::Disk;
use vmetal_model::{BmcAddress, RootDeviceHints};

use crate::support::Ground::{Elsewhere, Here};
use crate::support::{
    HostBlock, ground, image, journal, lab, must_say, node_type, object, password, rewrite, start, tenant_node,
    terraform, terraform_with,
};

/// The real installer's choice, word for word.
fn choose(disks: &[Disk], hints: &RootDeviceHints) -> Result<Disk, AgentFailure> {
    root_device::select(disks, hints, 1 << 30).cloned().map_err(|error| AgentError::from(error).to_failure())
}

/// A case: its name, what it does, and with which stack.
type Case<'a> = (&'static str, fn(&Place), &'a Place);

/// A server on a stack of its own, which has these deadlines and no control plane.
struct Aside {
    // Ends before its directory goes.
    stack: Stack,
    _directory: tempfile::TempDir,
}

impl Aside {
    fn start(host: &str, behaviour: Behaviour, deadlines: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("vm-").tempdir_in("/tmp").unwrap();
        let options = Options {
            directory: directory.path().to_owned(),
            lab: lab(&[host]),
            api_port: None,
            cluster_port: None,
            cluster: false,
            software: Software::Simulated(BTreeMap::from([(host.to_owned(), behaviour)])),
            engine: format!("[deadlines]\n{deadlines}\n"),
        };
        Aside { stack: Stack::start(options, &mut |_| {}).unwrap(), _directory: directory }
    }

    /// Gives it the control plane of another stack.
    fn borrow_cluster(&self, of: &Place) {
        let kubeconfig = self.stack.place.kubeconfig();
        std::fs::create_dir_all(kubeconfig.parent().unwrap()).unwrap();
        std::fs::copy(of.kubeconfig(), kubeconfig).unwrap();
    }
}

#[test]
fn failures_say_what_where_and_what_to_do() {
    let behaviours = BTreeMap::from([
        (
            "refused".to_owned(),
            Behaviour {
                system: System::FailsToJoin("error execution phase preflight\nthe clock is wrong".to_owned()),
                ..Behaviour::default()
            },
        ),
        (
            "choosy".to_owned(),
            Behaviour {
                disks: vec![disk("nvme0n1", 64, "FIRST"), disk("nvme1n1", 64, "SECOND")],
                choose_disk: choose,
                ..Behaviour::default()
            },
        ),
    ]);
    let hosts = ["refused", "choosy", "locked", "selfsigned", "original", "spare"];
    let lab = start(&hosts, behaviours, "");
    let stack = &lab.stack;
    let place = &stack.place;
    let never = Behaviour { system: System::NeverJoins, ..Behaviour::default() };
    let loner = Aside::start("loner", never, "join = \"15s\"");
    loner.borrow_cluster(place);
    let never = Behaviour { network_boot: NetworkBoot::NeverCallsIn, ..Behaviour::default() };
    let mute = Aside::start("mute", never, "call_in = \"5s\"\ndrain = \"1s\"");
    // First alone: image and cluster are the others' ground.
    terraform(place, "ground", &ground(place)).apply().unwrap();

    let cases: [Case; 11] = [
        ("wrong password", wrong_password, place),
        ("unreachable", unreachable, place),
        ("not pinned", not_pinned, place),
        ("scheme", unknown_scheme, place),
        ("duplicates", duplicates, place),
        ("no node type", no_node_type, place),
        ("checksum", wrong_checksum, place),
        ("no disk", no_disk, place),
        ("never joins", never_joins, &loner.stack.place),
        ("join fails", join_fails, place),
        ("never calls in", never_calls_in, &mute.stack.place),
    ];
    let failed: Vec<&str> = std::thread::scope(|scope| {
        let running: Vec<_> = cases
            .map(|(name, case, place)| {
                let case = std::thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, move || case(place));
                (name, case.unwrap())
            })
            .into();
        running.into_iter().filter_map(|(name, case)| case.join().is_err().then_some(name)).collect()
    });
    assert_eq!(failed, Vec::<&str>::new(), "these cases failed; see above");
    choice_corrected(stack);
}

fn wrong_password(place: &Place) {
    let text = HostBlock::of(place, "locked").text();
    let terraform = terraform_with(place, "locked", &text, &json!({ "locked": "not-the-password" }));
    // Told at once: a user who has to wait until terraform gives up reads of a timeout instead.
    let said = terraform.must_fail(&["apply", "-auto-approve", "-input=false", "-no-color"]).unwrap();
    must_say(
        &said,
        &[
            "host \"locked\" failed",
            "refused user \"admin\" and its password",
            "What to do: Correct user name or password",
        ],
    );
    assert!(!said.contains("not-the-password"), "{said}");
    let refused = journal(place, "locked").iter().filter(|entry| entry["status"] == 401).count();
    assert!((1..=3).contains(&refused), "the BMC saw {refused} refused passwords; accounts get locked");

    let right = HostBlock { password_version: "2".to_owned(), ..HostBlock::of(place, "locked") }.text();
    let terraform = terraform_with(place, "locked", &right, &json!({ "locked": password("locked") }));
    terraform.apply().unwrap();
    assert_eq!(object(place, "host", "locked")["status"]["phase"], "available");
    assert!(terraform.plan_is_empty().unwrap());
}

fn unreachable(place: &Place) {
    let port = vmetal_test_port::free_port().unwrap();
    let nobody = HostBlock {
        name: "nobody".to_owned(),
        address: format!("redfish://127.0.0.1:{port}/redfish/v1/Systems/1"),
        mac: "52:54:00:0b:0d:01".to_owned(),
        fingerprint: None,
        password_version: "1".to_owned(),
        more: String::new(),
    };
    let terraform = terraform(place, "nobody", &nobody.text());
    let said = terraform.must_fail(&["apply", "-auto-approve", "-input=false", "-no-color"]).unwrap();
    let origin = format!("127.0.0.1:{port}");
    must_say(
        &said,
        &[
            "host \"nobody\" failed",
            &origin,
            "did not answer",
            "onnection refused",
            "What to do: Check address and port",
        ],
    );
}

fn not_pinned(place: &Place) {
    let known = HostBlock::of(place, "selfsigned");
    let pin = known.fingerprint.clone().unwrap();
    let terraform = terraform(place, "selfsigned", &HostBlock { fingerprint: None, ..known }.text());
    let said = terraform.must_fail(&["apply", "-auto-approve", "-input=false", "-no-color"]).unwrap();
    must_say(
        &said,
        &["host \"selfsigned\" failed", "certificate that is not trusted", "self-signed", &pin, "pin it with"],
    );
    rewrite(&terraform, &HostBlock::of(place, "selfsigned").text());
    terraform.apply().unwrap();
    assert_eq!(object(place, "host", "selfsigned")["status"]["phase"], "available");
}

fn unknown_scheme(place: &Place) {
    let known = HostBlock::of(place, "spare");
    let address = known.address.replacen("redfish://", "telnet://", 1);
    let terraform = terraform(place, "scheme", &HostBlock { address, ..known }.text());
    let said = terraform.must_fail(&["plan", "-input=false", "-no-color"]).unwrap();
    must_say(
        &said,
        &["Invalid BMC address", "bmc.address", "telnet", "expected redfish, redfish+https or redfish+http"],
    );
}

fn duplicates(place: &Place) {
    let original = HostBlock::of(place, "original");
    let setup = terraform(place, "original", &original.text());
    setup.apply().unwrap();
    let address = "redfish://127.0.0.1:1/redfish/v1/Systems/1".to_owned();
    let twin = || HostBlock { name: "twin".to_owned(), ..HostBlock::of(place, "original") };
    let same_mac = HostBlock { address, ..twin() };
    let terraform = terraform(place, "twin", &same_mac.text());
    let said = terraform.must_fail(&["apply", "-auto-approve", "-input=false", "-no-color"]).unwrap();
    must_say(
        &said,
        &[
            "belongs to another object already",
            "host \"twin\"",
            "host \"original\"",
            &original.mac,
            "of spec.boot_mac of host",
        ],
    );
    let same_bmc = HostBlock { mac: "52:54:00:0b:0d:02".to_owned(), ..twin() };
    rewrite(&terraform, &same_bmc.text());
    let said = terraform.must_fail(&["apply", "-auto-approve", "-input=false", "-no-color"]).unwrap();
    let origin = original.address.parse::<BmcAddress>().unwrap().identity();
    must_say(
        &said,
        &["belongs to another object already", "host \"twin\"", "host \"original\"", &origin, "bmc.address: "],
    );
}

fn no_node_type(place: &Place) {
    let types = ["spare-small", "spare-labelled"]
        .map(|name| node_type("spare", Elsewhere).replace("\"spare\"", &format!("\"{name}\"")));
    let claim = r#"
resource "vmetal_tenant_node" "giant" {
  name         = "giant"
  cluster      = "tenant"
  resources    = { cpu = "1000" }
  depends_on   = [vmetal_node_type.spare-small, vmetal_node_type.spare-labelled]
}
"#;
    let terraform = terraform(place, "giant", &format!("{}{claim}", types.concat()));
    let said = terraform.must_fail(&["apply", "-auto-approve", "-input=false", "-no-color"]).unwrap();
    must_say(
        &said,
        &[
            "tenant node \"giant\" failed",
            "- node type spare-small:",
            "- node type spare-labelled:",
            "cpu",
            "1000",
            "Ask for less",
            "its selector matches no host",
        ],
    );
}

fn wrong_checksum(place: &Place) {
    let path = image(place, "altered");
    let bytes = std::process::Command::new("sha256sum").arg(&path).output().unwrap().stdout;
    let seen = String::from_utf8(bytes).unwrap()[..64].to_owned();
    let expected = "0123456789abcdef".repeat(4);
    let text = format!(
        "resource \"vmetal_image\" \"altered\" {{\n  name = \"altered\"\n  source = {path:?}\n  checksum = \"sha256:{expected}\"\n}}\n"
    );
    let terraform = terraform(place, "altered", &text);
    let said = terraform.must_fail(&["apply", "-auto-approve", "-input=false", "-no-color"]).unwrap();
    must_say(&said, &["image \"altered\" failed", &expected, &seen, "What to do: Correct source, checksum or format"]);
}

fn no_disk(place: &Place) {
    let host = HostBlock { more: "root_device = { serial = \"THIRD\" }".to_owned(), ..HostBlock::of(place, "choosy") };
    let text = [host.text(), node_type("choosy", Elsewhere), tenant_node("choosy-node", "choosy", Elsewhere)].concat();
    let terraform = terraform(place, "choosy", &text);
    let said = terraform.must_fail(&["apply", "-auto-approve", "-input=false", "-no-color"]).unwrap();
    must_say(
        &said,
        &[
            "tenant node \"choosy-node\" failed",
            "host choosy",
            "no disk of the 2 seen matches",
            "nvme0n1",
            "FIRST",
            "nvme1n1",
            "SECOND",
            "THIRD",
            "What to do: Correct the host's root_device",
        ],
    );
}

/// The operator corrects the hints and applies again: what failed to be created terraform replaces, the host stays.
fn choice_corrected(stack: &Stack) {
    let place = &stack.place;
    let uid = object(place, "host", "choosy")["metadata"]["uid"].clone();
    let host = HostBlock { more: "root_device = { serial = \"SECOND\" }".to_owned(), ..HostBlock::of(place, "choosy") };
    let text = [host.text(), node_type("choosy", Elsewhere), tenant_node("choosy-node", "choosy", Elsewhere)].concat();
    let terraform = terraform(place, "choosy", &text);
    terraform.apply().unwrap();
    let node = object(place, "tenant-node", "choosy-node");
    assert_eq!(node["status"]["phase"], "ready", "{node:#}");
    let host = object(place, "host", "choosy");
    assert_eq!((&host["metadata"]["uid"], &host["status"]["claim"]["uid"]), (&uid, &node["metadata"]["uid"]));
    let installed = stack.installers().unwrap().count("choosy", &Deed::Finished(BootPurpose::Install));
    assert_eq!(installed, 2, "the report that no disk was found, and the installation");
    assert!(terraform.plan_is_empty().unwrap());
}

fn never_joins(place: &Place) {
    let text = [
        ground(place),
        HostBlock::of(place, "loner").text(),
        node_type("loner", Here),
        tenant_node("loner-node", "loner", Here),
    ]
    .concat();
    let terraform = terraform(place, "loner", &text);
    let said = terraform.must_fail(&["apply", "-auto-approve", "-input=false", "-no-color"]).unwrap();
    must_say(
        &said,
        &[
            "tenant node \"loner-node\" failed",
            "did not become Ready within 15s",
            "has not registered yet",
            "Host: loner",
            "Look at the host's console",
        ],
    );
}

fn join_fails(place: &Place) {
    let text = [
        HostBlock::of(place, "refused").text(),
        node_type("refused", Elsewhere),
        tenant_node("refused-node", "refused", Elsewhere),
    ]
    .concat();
    let terraform = terraform(place, "refused", &text);
    let said = terraform.must_fail(&["apply", "-auto-approve", "-input=false", "-no-color"]).unwrap();
    must_say(
        &said,
        &["tenant node \"refused-node\" failed", "joining the cluster failed", "the clock is wrong", "Host: refused"],
    );
}

fn never_calls_in(place: &Place) {
    let host = HostBlock::of(place, "mute");
    let terraform = terraform(place, "mute", &host.text());
    let said = terraform.must_fail(&["apply", "-auto-approve", "-input=false", "-no-color"]).unwrap();
    must_say(
        &said,
        &[
            "host \"mute\" failed",
            "no installer called in from",
            &host.mac,
            "within 5s",
            "What to do: Check the boot MAC",
        ],
    );
}
