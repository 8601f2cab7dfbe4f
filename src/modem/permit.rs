//! Which AT commands may be passed on.

/// Extended commands that change what the dialogue stands on, hold the line, or cut the gateway off; a query (`?`) and a
/// test (`=?`) may always be passed on.
const FORBIDDEN: &[&str] = &[
    "+CFUN",
    "+CMGF",
    "+CPMS",
    "+CNMI",
    "+CMEE",
    "+CSCS",
    "+CMGS",
    "+CMGW",
    "+CMSS",
    "+CMGC",
    "+CMGD",
    "+CNMA",
    "+CSMS",
    "+CMMS",
    "+CPIN",
    "+CLCK",
    "+CPWD",
    "+CPWROFF",
    "+CPOF",
    "+QPOWD",
    "^SMSO",
    "+CMUX",
    "+CGDATA",
    "+CRSM",
    "+CSIM",
    "+IPR",
    "+ICF",
    "+IFC",
    "+CUSD",
    "+QFOTADL",
    "+QPRTPARA",
    "+CSCA",
    "+COPS",
    "+CGATT",
    "+CLIP",
    "+CREG",
    "+CEREG",
    "+CGREG",
];

/// Basic commands that only tell something, or hang up.
const HARMLESS: &[&str] = &["I", "H", "E0", "&V"];

/// Whether a command may be passed on; `allow` are beginnings of commands that may in any case.
///
/// # Errors
/// Why not, in a sentence.
pub(super) fn check(text: &str, allow: &[String]) -> Result<(), String> {
    let upper = text.trim().to_ascii_uppercase();
    let printable = text.bytes().all(|c| (0x20..0x7F).contains(&c));
    let Some(body) = upper.strip_prefix("AT").filter(|_| printable && text.len() <= 400) else {
        return Err("a command must be one line that begins with AT".to_owned());
    };
    for command in apart(body) {
        let whole = format!("AT{command}");
        let allowed = allow.iter().any(|start| !start.is_empty() && whole.starts_with(&start.to_ascii_uppercase()));
        if !allowed && !is_harmless(&command) {
            let name: String = whole.chars().take_while(|c| *c != '=').take(20).collect();
            return Err(format!(
                "{name} can break the dialogue with the modem or cut the gateway off; it is passed on only when allow of [modem] names it"
            ));
        }
    }
    Ok(())
}

fn is_harmless(command: &str) -> bool {
    let Some(first) = command.chars().next() else { return true };
    if first.is_ascii_alphabetic() || first == '&' {
        let known = |word: &str| command == word || command.strip_prefix(word).is_some_and(is_digits);
        return HARMLESS.iter().any(|word| known(word)) && command != "E01";
    }
    if !"+^#$%*!".contains(first) {
        return false;
    }
    let name = command.split(['=', '?']).next().unwrap_or(command).trim_end();
    let only_asks = matches!(command.strip_prefix(name).map(str::trim), Some("?" | "=?"));
    only_asks || !FORBIDDEN.contains(&name)
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|c| c.is_ascii_digit())
}

/// Takes a line of commands apart (ITU-T V.250, 5.2): extended ones end with a semicolon, basic ones with their digits.
fn apart(body: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = body;
    while let Some(first) = rest.chars().next() {
        if first == ' ' || first == ';' {
            rest = rest.get(1..).unwrap_or_default();
            continue;
        }
        let is_basic = first.is_ascii_alphabetic() || first == '&';
        let end = if is_basic && first != 'D' { basic_end(rest) } else { extended_end(rest) };
        let (command, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        found.push(command.trim().to_owned());
        rest = after;
    }
    found
}

fn basic_end(rest: &str) -> usize {
    let name = if rest.starts_with('&') { 2 } else { 1 };
    let parameter = |c: char| c.is_ascii_digit() || matches!(c, '=' | '?');
    let behind = rest.get(name..).unwrap_or_default();
    name + behind.find(|c| !parameter(c)).unwrap_or(behind.len())
}

fn extended_end(rest: &str) -> usize {
    let mut inside = false;
    let end = rest.find(|c| {
        inside ^= c == '"';
        c == ';' && !inside
    });
    end.unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_only_asks_is_passed_on_and_what_breaks_the_dialogue_is_not() {
        for fine in [
            "AT",
            "at+csq",
            "AT+CGSN",
            "AT+COPS?",
            "AT+COPS=?",
            "ATI",
            "ATI9",
            "AT^SYSINFO",
            "AT+CSQ;+CREG?",
            "AT+CMGL=4",
            "AT#MONI",
        ] {
            assert_eq!(check(fine, &[]), Ok(()), "{fine}");
        }
        for wrong in [
            "ATD+34666;",
            "ATE1",
            "ATE",
            "ATZ",
            "AT&F",
            "ATA",
            "ATQ1",
            "ATV0",
            "AT+CFUN=0",
            "at+cfun=4",
            "AT+CSQ;+CFUN=0",
            "ATIE1",
            "AT+CMGS=20",
            "AT+CPIN=\"1234\"",
            "AT+CSQ\rATE1",
            "AT+CSQ\u{1a}",
            "+++",
            "",
            "AT+CMGF=1",
            "AT\"",
            "AT+IPR=300",
            "ATI;D123",
            "AT+X=\"a;b\";+CFUN=0",
            "ATO",
            "AT&K3",
            "AT+CFUN=0?",
        ] {
            assert!(check(wrong, &[]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_operator_may_allow_more() {
        let allow = ["at+cfun".to_owned()];
        assert_eq!(check("AT+CFUN=0", &allow), Ok(()));
        assert!(check("AT+CFUN=0;+CMGF=1", &allow).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_passed_on_or_refused(text in any::<String>()) {
            let _ = check(&text, &[]);
            let _ = check(&format!("AT{text}"), &[]);
        }

        #[test]
        fn nothing_hides_behind_a_harmless_command(start in "(I|H|\\+CSQ;|\\+COPS\\?;|\\^X=\"a;b\";| )*", bad in "(E1|D123|Z|\\+CFUN=0|&F|\\+CMGF=1)") {
            let line = format!("AT{start}{bad}");
            prop_assert!(check(&line, &[]).is_err(), "{}", line);
        }
    }
}
