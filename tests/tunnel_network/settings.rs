//! What `weir check` says about tunnels in the network.

/// All complaints about a tunnel, with a serial port that it can have.
fn complaints(tunnel: &str) -> Vec<String> {
    let text = format!(
        "[broker]\nurl = \"ssl://localhost:8883\"\n[[port]]\nname = \"p\"\ndevice = \"/dev/ttyS7\"\n[[tunnel]]\nport = \"p\"\n{tunnel}"
    );
    weir::config::parse(&text).map_or_else(|p| p, |l| l.warnings).iter().map(ToString::to_string).collect()
}

#[test]
fn each_mode_is_taken_with_what_it_needs() {
    for tunnel in [
        "",
        "mode = \"mqtt\"\nrx_topic = \"a\"\n",
        "mode = \"tcp-server\"\nlisten = \"0.0.0.0:20010\"\nallow = [\"80.1.2.3\", \"10.0.0.0/8\"]\nrfc2217 = true\n",
        "mode = \"tcp-server\"\nlisten = \"127.0.0.1:20010\"\ntakeover = true\nidle = \"0s\"\nflush = false\n",
        "mode = \"tcp-client\"\nconnect = \"localhost:20010\"\nwhen = \"data\"\nidentify = \"{id}\\r\\n\"\ntls = true\n",
        "mode = \"call-back\"\ntargets = [\"centre.example.com:4059\"]\n",
        "mode = \"udp\"\nlocal = \"0.0.0.0:20010\"\nremote_port = 20010\nroutes = [\"10.1.1.10@1\", \"10.1.1.20@2\"]\n",
        "mode = \"udp\"\nlocal = \"0.0.0.0:20010\"\nallow = [\"10.1.1.0/24\"]\n",
    ] {
        assert_eq!(complaints(tunnel), Vec::<String>::new(), "{tunnel}");
    }
}

#[test]
fn each_mistake_has_a_sentence() {
    for (tunnel, sentence) in [
        ("mode = \"tcp\"\n", "must be one of \"mqtt\", \"tcp-server\", \"tcp-client\", \"udp\", \"call-back\""),
        ("mode = \"tcp-server\"\n", "mode = \"tcp-server\" needs listen = \"address:port\""),
        ("mode = \"tcp-client\"\n", "needs connect = \"host:port\""),
        ("mode = \"call-back\"\n", "needs targets = [\"host:port\"]"),
        ("mode = \"udp\"\n", "needs local = \"address:port\""),
        ("mode = \"udp\"\nlocal = \"0.0.0.0:1\"\n", "needs routes = [\"ip@unit\"] with a Modbus master"),
        ("listen = \"0.0.0.0:1\"\n", "listen is for mode = \"tcp-server\", but this tunnel's mode is \"mqtt\""),
        ("mode = \"tcp-server\"\nlisten = \"127.0.0.1:1\"\nrx_topic = \"a\"\n", "rx_topic is for mode = \"mqtt\""),
        (
            "mode = \"tcp-server\"\nlisten = \"127.0.0.1:1\"\ntls = true\n",
            "tls is for mode = \"tcp-client\" or \"call-back\"",
        ),
        ("mode = \"tcp-server\"\nlisten = \"20010\"\n", "must be an address of this gateway and a port"),
        ("mode = \"tcp-server\"\nlisten = \"0.0.0.0:1\"\n", "whoever reaches 0.0.0.0:1 can talk"),
        ("mode = \"tcp-server\"\nlisten = \"0.0.0.0:1\"\nallow = [\"10.0.0.0/40\"]\n", "must be an address such as"),
        ("mode = \"tcp-client\"\nconnect = \"centre\"\n", "must be a host and a port"),
        ("mode = \"tcp-client\"\nconnect = \"centre:1\"\n", "the tunnel has no TLS"),
        (
            "mode = \"call-back\"\ntargets = [\"a:1\"]\ntls = false\nca_file = \"/a\"\n",
            "ca_file is for TLS: set tls = true",
        ),
        (
            "mode = \"call-back\"\ntargets = [\"a:1\"]\nclient_key_file = \"/a\"\n",
            "client_key_file needs client_certificate_file",
        ),
        (
            "mode = \"call-back\"\ntargets = [\"a:1\"]\nca_file = \"/absent.pem\"\n",
            "ca_file /absent.pem does not exist yet",
        ),
        ("mode = \"call-back\"\ntargets = [\"a:1\"]\nidentify = \"{imei}\"\n", "identify uses {imei}"),
        ("mode = \"call-back\"\ntargets = [\"a:1\"]\nidle = \"48h\"\n", "idle is longer than a day"),
        ("mode = \"udp\"\nlocal = \"0.0.0.0:1\"\nroutes = [\"10.0.0.1@1\"]\n", "routes needs remote_port"),
        (
            "mode = \"udp\"\nlocal = \"0.0.0.0:1\"\nremote_port = 2\nroutes = [\"10.0.0.1@0\"]\n",
            "a Modbus unit from 1 to 255",
        ),
        (
            "mode = \"udp\"\nlocal = \"0.0.0.0:1\"\nremote_port = 2\nroutes = [\"10.0.0.1@1\", \"10.0.0.2@1\"]\n",
            "routes names the unit 1 twice",
        ),
        (
            "mode = \"udp\"\nlocal = \"0.0.0.0:1\"\nallow = [\"10.0.0.1\"]\nremote_port = 2\n",
            "remote_port is for routes",
        ),
        (
            "mode = \"udp\"\nlocal = \"0.0.0.0:1\"\nremote_port = 2\nroutes = [\"10.0.0.1@1\"]\nallow = [\"10.0.0.2\"]\n",
            "allow is not for a tunnel with routes",
        ),
        (
            "mode = \"udp\"\nlocal = \"0.0.0.0:1\"\nremote_port = 2\nroutes = [\"10.0.0.1@1\"]\n[[meter]]\nname = \"m\"\nport = \"p\"\n\
             protocol = \"modbus-rtu\"\nregister = [{ name = \"v\", register = \"holding:1\" }]\n",
            "this tunnel must hear the port all the time",
        ),
        (
            "mode = \"tcp-server\"\nlisten = \"127.0.0.1:7\"\n[[port]]\nname = \"q\"\ndevice = \"/dev/ttyS8\"\n[[tunnel]]\nport = \"q\"\n\
             mode = \"tcp-server\"\nlisten = \"0.0.0.0:7\"\nallow = [\"10.0.0.1\"]\n",
            "another tunnel has 0.0.0.0:7 already",
        ),
    ] {
        let found = complaints(tunnel);
        assert!(found.iter().any(|line| line.contains(sentence)), "missing: {sentence}\nfound: {found:#?}");
    }
}
