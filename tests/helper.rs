//! systemd/helper, which acts for weir as root, judged without root: what it does is noted by a stand-in for systemctl.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test may fail loudly"
)]

#[path = "helper/bench.rs"]
mod bench;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;

use self::bench::Bench;

const DAY: u64 = 86_400;
const NOW: u64 = 1_800_000_000;

#[test]
fn a_reboot_is_done_once_and_the_request_is_gone() {
    let bench = Bench::new();
    assert_eq!(bench.ask("reboot", "id a1\nwhy watchdog\n"), "a1 done");
    assert_eq!(bench.asked(), ["reboot"]);
    assert!(fs::read_dir(bench.path("run/request")).unwrap().next().is_none());
    bench.judge();
    assert!(bench.asked().is_empty());
}

#[test]
fn reboots_have_a_limit_that_no_restart_and_no_clock_gets_around() {
    let bench = Bench::new();
    bench.time(NOW, 599);
    assert!(bench.ask("reboot", "id 1\n").contains("less than 600 s"));
    for boot in 1..=6 {
        bench.kernel(boot, true);
        bench.time(NOW + boot * 700, 650);
        assert_eq!(bench.ask("reboot", "id 2\n"), "2 done", "{boot}");
    }
    assert_eq!(bench.asked().len(), 6);
    // The clock is lost at a power cut, is wrong, and stands in the past and in the future of the list.
    for (boot, wall) in (7..).zip([0, 1_000, NOW - DAY, NOW + 5000, NOW + 9 * DAY]) {
        bench.kernel(boot, false);
        bench.time(wall, 700);
        assert!(bench.ask("reboot", "id 3\n").contains("refused: 6 reboots in 24 hours"), "{wall}");
    }
    bench.kernel(12, true);
    bench.time(NOW + 700 + DAY - 1, 700);
    assert!(bench.ask("reboot", "id 3\n").contains("refused"));
    assert!(bench.asked().is_empty());
    bench.time(NOW + 1400 + DAY, 701);
    assert_eq!(bench.ask("reboot", "id 4\n"), "4 done", "the first two are a day old");
    assert_eq!(bench.ask("reboot", "id 4\n"), "4 done");
    assert!(bench.ask("reboot", "id 4\n").contains("refused"));
    // A day of this kernel is a day.
    bench.kernel(12, false);
    bench.time(1000, 701 + DAY);
    assert_eq!(bench.ask("reboot", "id 5\n"), "5 done");
}

#[test]
fn without_a_clock_a_day_is_a_day_of_running_time_over_all_boots() {
    let bench = Bench::new();
    let ask = |boot, uptime| {
        bench.kernel(boot, false);
        bench.time(boot * NOW % 77_777_777, uptime);
        bench.ask("reboot", "id 1\n") == "1 done"
    };
    assert!((1..=6).all(|boot| ask(boot, 650)));
    // The first is five boots of 650 s and this one ago.
    assert!(!ask(7, 650) && !ask(7, 86_400 - 5 * 650 - 1));
    assert!(ask(7, 86_400 - 5 * 650) && !ask(7, 86_400 - 5 * 650));
    assert!(!ask(8, 649) && ask(8, 650), "and so is the second");
    // What a boot ran after it was last asked is known to nobody.
    assert!(!ask(9, 649));
    // A list that says nothing of a boot counts as just written.
    fs::write(bench.path("state/reboots"), "1800000000\n".repeat(5) + "0 99999999999999999999\n").unwrap();
    assert!(!ask(10, 86_400) && ask(10, 2 * 86_400));
}

#[test]
fn no_life_without_a_clock_has_more_reboots_in_a_day_than_the_limit() {
    let bench = Bench::new();
    let (mut lived, mut done) = (0, Vec::new());
    for (boot, length) in (1..).zip([700, 4000, 650, 9000, 30_000, 60_000, 700, 100_000].into_iter().cycle().take(40)) {
        bench.kernel(boot, false);
        for uptime in (650..=length).step_by(7000) {
            bench.time(boot * 1_000_000_007 % 4_000_000_000, uptime);
            if bench.ask("reboot", "id 1\n") == "1 done" {
                done.push(lived + uptime);
                lived += uptime;
                break;
            }
            if uptime + 7000 > length {
                lived += length;
            }
        }
    }
    assert!(done.windows(7).all(|seven| seven[6] - seven[0] >= DAY), "{done:?}");
    assert!(done.len() > 12, "and it does not end for ever: {done:?}");
}

#[test]
fn what_was_noted_before_the_clock_was_set_counts_as_new() {
    let bench = Bench::new();
    bench.kernel(1, false);
    for _ in 0..6 {
        bench.time(1000, 700);
        assert_eq!(bench.ask("reboot", "id 1\n"), "1 done");
    }
    bench.kernel(1, true);
    bench.time(NOW, 700);
    assert!(bench.ask("reboot", "id 1\n").contains("refused"));
}

#[test]
fn updates_have_a_limit_of_their_own_that_ends_with_running_time() {
    let bench = Bench::new();
    bench.kernel(1, false);
    let sha = bench.firmware("new weir");
    let ask = |uptime| {
        bench.time(1000, uptime);
        let _ = fs::remove_file(bench.path("state/trial"));
        bench.ask("update", &format!("id 1\nsha256 {sha}\nminutes 1\n"))
    };
    assert!((0..10).all(|_| ask(700) == "1 done"));
    assert!(ask(700 + 86_399).contains("refused: 10 updates in 24 hours"));
    assert_eq!(ask(700 + 86_400), "1 done");
}

#[test]
fn a_list_that_cannot_be_written_allows_nothing() {
    let bench = Bench::new();
    fs::create_dir_all(bench.path("state/reboots.new")).unwrap();
    assert!(bench.ask("reboot", "id 1\n").contains("refused"));
    assert!(bench.asked().is_empty());
}

#[test]
fn nothing_of_a_request_is_executed_and_what_is_no_file_is_thrown_away() {
    let bench = Bench::new();
    let evil = "id $(touch evil)\nid `touch evil`\n;reboot\nsha256 $(reboot)\nminutes 9;reboot\n";
    assert!(bench.ask("update", evil).contains("refused: the request is not understood"));
    let secret = bench.path("secret");
    fs::write(&secret, "id 77\n").unwrap();
    symlink(&secret, bench.path("run/request/reboot")).unwrap();
    fs::create_dir(bench.path("run/request/network-restart")).unwrap();
    fs::write(bench.path("run/request/poweroff"), "").unwrap();
    let said = bench.judge();
    assert_eq!(String::from_utf8(said.stdout).unwrap().matches("is no file").count(), 2);
    assert!(bench.asked().is_empty() && secret.exists() && !bench.path("evil").exists());
    assert!(!bench.path("run/request/reboot").exists() && !bench.path("run/request/network-restart").exists());
}

#[test]
fn the_network_service_that_runs_is_restarted_and_not_again_at_once() {
    let bench = Bench::new();
    assert_eq!(bench.ask("network-restart", "id 1\n"), "1 done: NetworkManager.service");
    assert_eq!(bench.asked(), ["-q is-active NetworkManager.service", "restart NetworkManager.service"]);
    assert!(bench.ask("network-restart", "id 2\n").contains("less than 300 s ago"));
    bench.time(NOW, 5300);
    assert!(bench.ask("network-restart", "id 3\n").starts_with("3 done"));
}

#[test]
fn a_firmware_is_installed_beside_the_old_one_and_kept_when_it_proves_itself() {
    let bench = Bench::new();
    let old = bench.read("weir");
    let sha = bench.firmware("new weir");
    assert_eq!(bench.ask("update", &format!("id 9\nsha256 {sha}\nminutes 10\n")), "9 done");
    assert_eq!((bench.read("weir").as_str(), bench.read("weir.previous")), ("new weir", old));
    assert_eq!(bench.asked(), ["--no-block start weir-trial.service", "--no-block restart weir.service"]);
    assert!(bench.ask("update", &format!("id 9\nsha256 {sha}\nminutes 10\n")).contains("on trial already"));
    let other = "0".repeat(64);
    assert!(bench.ask("update-confirm", &format!("id 3\nsha256 {other}\n")).contains("refused"));
    assert_eq!(bench.ask("update-confirm", &format!("id 3\nsha256 {sha}\n")), "3 done");
    bench.boot();
    assert!(bench.command().arg("watch").status().unwrap().success());
    assert_eq!((bench.read("weir").as_str(), bench.read("state/outcome")), ("new weir", format!("confirmed {sha}\n")));
}

/// A new firmware on trial for a minute; gives its hash.
fn on_trial(bench: &Bench) -> String {
    let sha = bench.firmware("new weir");
    assert_eq!(bench.ask("update", &format!("id 9\nsha256 {sha}\nminutes 1\n")), "9 done");
    sha
}

/// The trial's whole time, in which nobody sleeps.
fn time_is_up(bench: &Bench) {
    bench::program(&bench.path("bin/sleep"), "#!/bin/sh\n");
    let watched =
        bench.trial("ExecStart=", |command| command.env("WEIR_WATCH_STEP", "20").output().unwrap().status.success());
    assert!(watched.iter().all(|well| *well));
}

#[test]
fn a_firmware_that_does_not_prove_itself_goes_back_also_after_power_cuts() {
    for power_cuts in 0..5 {
        let bench = Bench::new();
        let old = bench.read("weir");
        let sha = on_trial(&bench);
        bench.trial("ExecStartPre=", |command| command.output().unwrap());
        bench.asked();
        for starts in 2..2 + power_cuts {
            bench.boot();
            let goes_on = starts <= 3;
            // weir finds the trial when it starts, and else the firmware before.
            assert_eq!(bench.read("run/trial").starts_with(&sha), goes_on);
            assert_eq!(bench.read("weir") == old, !goes_on);
        }
        time_is_up(&bench);
        assert_eq!((bench.read("weir"), bench.read("state/outcome")), (old, format!("reverted {sha}\n")));
        assert_eq!(bench.asked(), ["--no-block restart weir.service"]);
        assert!(!bench.path("state/trial").exists() && !bench.path("run/trial").exists());
    }
}

#[test]
fn a_trial_that_a_power_cut_broke_off_can_still_be_won() {
    let bench = Bench::new();
    let sha = on_trial(&bench);
    bench.boot();
    assert_eq!(bench.ask("update-confirm", &format!("id 3\nsha256 {sha}\n")), "3 done");
    bench.boot();
    time_is_up(&bench);
    assert_eq!((bench.read("weir").as_str(), bench.read("state/outcome")), ("new weir", format!("confirmed {sha}\n")));
}

/// Whoever is about to end the trial is overtaken by `other` at the last moment.
fn overtaken(bench: &Bench, other: &str) {
    let helper = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/helper");
    let text = format!(
        "#!/bin/sh\nif mv \"$BENCH/other\" \"$BENCH/came\" 2>/dev/null; then {helper} {other} >/dev/null; fi\nPATH=/usr/bin:/bin\nexec flock \"$@\"\n"
    );
    bench::program(&bench.path("bin/flock"), &text);
    fs::write(bench.path("other"), "").unwrap();
}

#[test]
fn a_trial_ends_once_also_when_its_proof_and_its_time_cross() {
    let bench = Bench::new();
    let (old, sha) = (bench.read("weir"), on_trial(&bench));
    bench::program(&bench.path("bin/sleep"), "#!/bin/sh\n");
    overtaken(&bench, "watch");
    fs::write(bench.path("run/request/update-confirm"), format!("id 3\nsha256 {sha}\n")).unwrap();
    assert!(bench.command().env("WEIR_WATCH_STEP", "60").status().unwrap().success());
    assert_eq!(bench.answer("update-confirm"), "3 refused: this firmware is not on trial");
    assert_eq!((bench.read("weir"), bench.read("state/outcome")), (old, format!("reverted {sha}\n")));
    // The other way round.
    let bench = Bench::new();
    let sha = on_trial(&bench);
    bench.asked();
    overtaken(&bench, "");
    fs::write(bench.path("run/request/update-confirm"), format!("id 4\nsha256 {sha}\n")).unwrap();
    time_is_up(&bench);
    assert_eq!(bench.answer("update-confirm"), "4 done");
    assert_eq!((bench.read("weir").as_str(), bench.read("run/outcome")), ("new weir", format!("confirmed {sha}\n")));
    assert!(bench.asked().is_empty(), "weir is not restarted");
}

#[test]
fn weir_starts_only_when_it_is_known_whether_it_is_on_trial() {
    let unit = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/weir-trial.service")).unwrap();
    assert!(unit.lines().any(|line| line == "Before=weir.service"));
}

/// Programs that end the helper, as a power cut does, at the operation that `cut` counts down to; a copy is half done then.
fn fragile(bench: &Bench) {
    for name in ["cp", "mv", "rm", "sync", "chmod"] {
        let half = if name == "cp" { "head -c 3 \"$1\" >\"$2\"" } else { ":" };
        let text = format!(
            "#!/bin/sh\nPATH=/usr/bin:/bin\nif [ -s \"$BENCH/cut\" ]; then\n  left=$(cat \"$BENCH/cut\")\n  [ \"$left\" -gt 1 ] || {{ {half}; kill -9 0; }}\n  echo $((left - 1)) >\"$BENCH/cut\"\nfi\nexec {name} \"$@\"\n"
        );
        bench::program(&bench.path(&format!("bin/{name}")), &text);
    }
}

/// Runs it until the power fails at an operation; whether it did.
fn cut(bench: &Bench, operation: u32, command: &mut Command) -> bool {
    fs::write(bench.path("cut"), format!("{operation}\n")).unwrap();
    let status = command.process_group(0).output().unwrap().status;
    fs::remove_file(bench.path("cut")).unwrap();
    status.signal() == Some(9)
}

#[test]
fn a_power_cut_at_any_moment_leaves_a_whole_firmware_and_in_the_end_one_that_proved_itself() {
    let mut cuts = 0;
    for operation in 1.. {
        let bench = Bench::new();
        fragile(&bench);
        let old = bench.read("weir");
        let sha = bench.firmware("new weir");
        fs::write(bench.path("run/request/update"), format!("id 9\nsha256 {sha}\nminutes 1\n")).unwrap();
        let failed = cut(&bench, operation, &mut bench.command());
        for again in 1.. {
            assert!(
                [old.as_str(), "new weir"].contains(&bench.read("weir").as_str()),
                "{operation}: {}",
                bench.read("weir")
            );
            let _ = fs::remove_dir_all(bench.path("run"));
            fs::create_dir_all(bench.path("run/request")).unwrap();
            // Each later boot is cut off, too, one operation later.
            if !bench.trial("ExecStartPre=", |command| cut(&bench, again, command)).contains(&true) {
                break;
            }
            cuts += 1;
        }
        bench::program(&bench.path("bin/sleep"), "#!/bin/sh\n");
        for again in 1.. {
            if !bench
                .trial("ExecStart=", |command| cut(&bench, again, command.env("WEIR_WATCH_STEP", "60")))
                .contains(&true)
            {
                break;
            }
            cuts += 1;
            assert!(
                [old.as_str(), "new weir"].contains(&bench.read("weir").as_str()),
                "{operation}: {}",
                bench.read("weir")
            );
            bench.boot();
        }
        assert_eq!(bench.read("weir"), old, "{operation}");
        assert!(!bench.path("state/trial").exists(), "{operation}");
        assert_eq!(on_trial(&bench), sha, "another one can be tried");
        if !failed {
            assert!(operation > 15 && cuts > 20, "{operation} {cuts}");
            return;
        }
    }
}

#[test]
fn a_trial_of_which_nothing_is_known_any_more_goes_back() {
    let bench = Bench::new();
    let old = bench.read("weir");
    on_trial(&bench);
    fs::write(bench.path("state/trial"), "\0\0 x x\n").unwrap();
    bench.boot();
    assert_eq!(bench.read("weir"), old);
    assert!(!bench.path("state/trial").exists());
}

#[test]
fn a_program_of_somebody_else_stays() {
    let bench = Bench::new();
    let sha = on_trial(&bench);
    fs::write(bench.path("weir"), "of a package").unwrap();
    bench.boot();
    assert_eq!((bench.read("weir").as_str(), bench.read("run/outcome")), ("of a package", format!("replaced {sha}\n")));
}

#[test]
fn another_firmware_than_was_promised_is_never_installed() {
    let bench = Bench::new();
    let old = bench.read("weir");
    let sha = bench.firmware("new weir");
    bench.firmware("other weir");
    let asked = format!("id 1\nsha256 {sha}\nminutes 10\n");
    assert!(bench.ask("update", &asked).contains("another one than the hash says"));
    fs::remove_file(bench.path("firmware/weir.new")).unwrap();
    symlink(bench.path("secret"), bench.path("firmware/weir.new")).unwrap();
    assert!(bench.ask("update", &asked).contains("there is no new firmware"));
    fs::remove_file(bench.path("firmware/weir.new")).unwrap();
    let sha = bench.firmware("good weir");
    fs::write(bench.path("keys"), "ops AAAA\n").unwrap();
    bench::program(&bench.path("weir"), "#!/bin/sh\n[ \"$4\" = good ]\n");
    let asked = format!("id 1\nsha256 {sha}\nminutes 10\n");
    assert!(bench.ask("update", &asked).contains("not signed"));
    assert!(bench.ask("update", &format!("{asked}signature bad\n")).contains("not signed"));
    assert_eq!(bench.ask("update", &format!("{asked}signature good\n")), "1 done");
    assert_ne!(bench.read("weir"), old);
    assert!(!bench.path("weir.new").exists());
}
