//! What SETMODBUS reads back is what it wrote: nobody is on the line between.

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use weir::sim::modbus_meter::{Fault, ModbusMeters};
use weir::wire::modbus::{Request, Table};

use super::rig::{self, Home};
use super::{CONTROL, meter_on, site};

/// Reads the meter again and again, as others would.
async fn ask(home: &Home) {
    let mut client = BufReader::new(UnixStream::connect(home.path("store/weir.sock")).await.unwrap());
    loop {
        client.get_mut().write_all(b"{\"ask\":\"read\",\"meter\":\"m\"}\n").await.unwrap();
        let mut answer = String::new();
        client.read_line(&mut answer).await.unwrap();
        assert!(answer.contains("\"ok\""), "{answer}");
    }
}

#[tokio::test]
async fn a_register_is_written_and_read_back_in_one_lease_whoever_else_waits() {
    let meters = ModbusMeters::new(&[7]);
    let (path, _served) = meters.serve_rtu().unwrap();
    // Slow enough that all the others wait in the row at any time.
    meters.set_fault(7, Some(Fault::Late(std::time::Duration::from_millis(100))));
    let (home, _broker, _agent, mut platform) = site(&format!("{}{CONTROL}", meter_on(&path, "1h"))).await;
    let polls = || meters.seen().iter().filter(|seen| reads(&seen.request, 0)).count();
    let story = async {
        rig::until("the others ask", || polls() > 5).await;
        for value in [4711, 4712, 4713] {
            let before = polls();
            let written = platform.ask(&format!("AT^MTXTUNNEL=SETMODBUS,7;3;{value}")).await;
            assert_eq!(written, format!("AT^MTXTUNNEL=SETMODBUS,7;3;{value} OK"));
            rig::until("the others go on", || polls() > before + 5).await;
        }
    };
    tokio::select! {
        () = story => {}
        _ = async { tokio::join!(ask(&home), ask(&home), ask(&home), ask(&home), ask(&home)) } => {}
    }
    let seen = meters.seen();
    let writes: Vec<_> =
        (0..seen.len()).filter(|at| matches!(seen[*at].request, Request::WriteRegister { .. })).collect();
    assert_eq!(writes.len(), 3);
    for at in writes {
        assert!(reads(&seen[at - 1].request, 0), "others were on the line before");
        assert!(reads(&seen[at + 1].request, 3), "{:?} came between", seen[at + 1].request);
        assert!(reads(&seen[at + 2].request, 0), "others were on the line behind it");
    }
}

fn reads(request: &Request, register: u16) -> bool {
    matches!(request, Request::Read { table: Table::Holding, address, .. } if *address == register)
}
