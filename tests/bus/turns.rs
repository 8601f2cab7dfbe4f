//! Whose turn it is: an order and the background.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use weir::meter::Session;
use weir::meter::bus::{Background, Owner, Purpose, Worked};
use weir::os::line::{Endpoint, Line, LineError};
use weir::os::pty::Pty;
use weir::sim::modbus_meter::{Fault, ModbusMeters};

use super::plumbing::{Running, meter, port, read_request};
use super::{PATIENCE, SECOND, pace};

/// Pieces of two frames each, one right after the other.
struct Pairs(usize);

impl Background for Pairs {
    fn idle(&self) -> Duration {
        Duration::ZERO
    }

    fn next(&mut self, _: Duration) -> Option<String> {
        self.0 = self.0.checked_sub(1)?;
        Some("background".to_owned())
    }

    fn work<'a>(&'a mut self, session: &'a mut dyn Session, line: &'a mut Line) -> Worked<'a> {
        Box::pin(async {
            session.read(line).await?;
            session.read(line).await.map(|_| ())
        })
    }
}

#[tokio::test]
async fn what_comes_when_a_command_has_ended_reaches_nobody_and_is_counted() {
    let mut far = Pty::open().unwrap();
    let bus = Running::start(port(Endpoint::Device(far.path().to_owned())), Vec::new());
    let command = bus.handle.named(Owner::new(Purpose::Command, "topic:gw1/AT"));
    let lent = command.lend(PATIENCE, |line| {
        Box::pin(async move {
            line.send(b"?").await.unwrap();
            line.receive(&mut [0; 2], Instant::now() + PATIENCE).await.unwrap()
        })
    });
    let (lent, ()) = tokio::join!(lent, async {
        assert_eq!(far.receive(&mut [0; 8]).await.unwrap(), 1);
        far.send(b"answer").await.unwrap();
    });
    assert_eq!(lent, Ok(2));
    let next = command
        .lend(PATIENCE, |line| Box::pin(async move { line.receive(&mut [0; 8], Instant::now() + SECOND / 5).await }));
    assert!(matches!(next.await, Ok(Err(LineError::Silent(_)))));
    assert_eq!(bus.handle.read_away(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_order_gets_the_line_between_two_pieces_of_background_work_and_never_inside_one() {
    pace::hold();
    let meters = ModbusMeters::new(&[2, 3]);
    let (path, _served) = meters.serve_rtu().unwrap();
    let on_the_line = vec![meter("asked", "address = 2"), meter("background", "address = 3")];
    // Slow, so that each order comes while a piece is under way.
    meters.set_fault(3, Some(Fault::Late(SECOND / 10)));
    let bus = Running::with_background(port(Endpoint::Device(path)), on_the_line, Box::new(Pairs(20)));
    let frames = |unit| meters.seen().iter().filter(|seen| seen.unit == unit).count();
    for order in 0..4 {
        // The first frame of a piece is on the line.
        let first = |frames: usize| frames % 2 == 1 && frames > 6 * order;
        timeout(PATIENCE, async {
            while !first(frames(3)) {
                sleep(SECOND / 100).await;
            }
        })
        .await
        .expect("the background goes on");
        let command = bus.handle.named(Owner::new(Purpose::Command, "topic:gw1/AT"));
        let owned = command.lend(5 * SECOND, |line| {
            Box::pin(async move {
                line.send(&read_request(2)).await.unwrap();
                line.receive(&mut [0; 64], Instant::now() + SECOND).await.unwrap()
            })
        });
        assert!(timeout(PATIENCE, owned).await.expect("it does not wait for all of the background").unwrap() > 0);
        assert!(frames(3) < 40, "not behind it either");
    }
    let units: Vec<u8> = meters.seen().iter().map(|seen| seen.unit).collect();
    let orders: Vec<_> = (0..units.len()).filter(|at| units[*at] == 2).collect();
    assert_eq!(orders.len(), 4, "{units:?}");
    for at in orders {
        let before = units[..at].iter().filter(|unit| **unit == 3).count();
        assert_eq!(before % 2, 0, "an order came inside a piece: {units:?}");
    }
}
