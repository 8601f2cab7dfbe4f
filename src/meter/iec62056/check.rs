//! What can't work in the settings of a meter with this protocol.

use super::{IecAccess, IecProfileRead, REACTION, ladder};
use crate::meter::MeterSettings;
use crate::setting::Problems;

/// The most characters of a meter's address (clause 6.3.1).
const ADDRESS_LIMIT: usize = 32;

/// Says everything in a meter's settings that can't work with this protocol.
pub fn check(settings: &MeterSettings, problems: &mut Problems) {
    if let (Some(at), Some(fault)) = (&settings.address, address_fault(&super::address(settings))) {
        problems.error(at.span(), format!("address {fault}"));
    }
    if let Some(profile) = &settings.profile {
        problems.error(profile.span(), "profile is for Modbus; an IEC 62056-21 meter names its values itself (values)");
    }
    if let Some(register) = settings.register.first() {
        problems.error(register.name.span(), "register is for Modbus; for an IEC 62056-21 meter list ids in values");
    }
    let whole = settings.protocol.span();
    for (number, id) in settings.values.iter().enumerate() {
        if id.trim().is_empty() || id.contains(['(', ')', '/', '!']) || !id.is_ascii() {
            problems.error(whole.clone(), format!("values has \"{id}\", which is no id such as \"1.8.0\""));
        } else if settings.values.iter().take(number).any(|earlier| earlier == id) {
            problems.error(whole.clone(), format!("values has \"{id}\" twice; keep one"));
        }
    }
    if settings.baud_change_delay >= REACTION {
        let message = "baud_change_delay is 200ms or more; a meter may answer before the rate is changed";
        problems.warning(whole, message);
    }
    programming(settings, problems);
    for text in &settings.sign_on {
        if !text.ends_with('!')
            || text.len() > 2 * ADDRESS_LIMIT
            || !text.chars().all(|c| c == ' ' || c.is_ascii_graphic())
        {
            let message = format!("sign_on has \"{text}\", which is no text such as \"/?12345678!\"");
            problems.error(settings.protocol.span(), message);
        }
    }
    if let Some(baud) = settings.force_baud.as_ref().filter(|baud| ladder::character(baud.value()).is_none()) {
        let message =
            format!("force_baud is {}; a meter knows 300, 600, 1200, 2400, 4800, 9600 and 19200", baud.value());
        problems.error(baud.span(), message);
    }
}

/// Checks what belongs to programming mode.
fn programming(settings: &MeterSettings, problems: &mut Problems) {
    let whole = settings.protocol.span();
    let single = settings.access == IecAccess::Programming;
    if single && settings.values.is_empty() {
        problems.error(
            whole.clone(),
            "access is \"programming\", but values is empty; list the ids to read, e.g. \"1.8.0\"",
        );
    }
    if let Some(file) = &settings.password_file {
        if !file.path().is_absolute() {
            problems.error(file.span(), "password_file must be an absolute path");
        } else if !single && settings.load_profile.is_none() {
            let message =
                "password_file is not used: a readout needs none; set access = \"programming\" or load_profile";
            problems.warning(file.span(), message);
        }
    }
    if settings.session_timeout.is_zero() {
        problems.error(whole, "session_timeout is zero; write how long the meter waits for a command, such as \"30s\"");
    }
    let Some(profile) = &settings.load_profile else { return };
    let id = profile.id.trim();
    if id.is_empty() || id.contains(['(', ')', '/', '!']) || !id.is_ascii() {
        problems.error(profile.id.span(), "the profile's id must be what the meter calls it, such as \"P.01\"");
    }
    if profile.records.is_some() && profile.command == IecProfileRead::R5 {
        problems.error(profile.id.span(), "records goes with command = \"R6\"; R5 sends the profile in one block");
    }
}

pub(super) fn address_fault(address: &str) -> Option<&'static str> {
    if address.len() > ADDRESS_LIMIT {
        Some("is longer than the 32 characters that IEC 62056-21 allows")
    } else if !address.chars().all(|c| c.is_ascii_alphanumeric() || c == ' ') {
        Some("has characters that IEC 62056-21 does not allow: use letters, digits and blanks")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    fn checked(toml: &str) -> Vec<String> {
        crate::meter::settings::checked("iec62056-21", toml)
    }

    #[test]
    fn settings_that_can_not_work_are_named_with_their_place() {
        assert_eq!(checked("address = 12345678\nvalues = [\"1.8.0\", \"C.1.0\"]"), Vec::<String>::new());
        let found = checked(
            "address = \"12!\"\nprofile = \"x\"\nvalues = [\"1.8.0\", \"1.8.0\", \"a(\"]\nbaud_change_delay = \"300ms\"",
        );
        assert_eq!(found.len(), 5, "{found:#?}");
        assert!(found.iter().any(|p| p.starts_with("4:11: error: address has characters")), "{found:#?}");
        assert!(found.iter().any(|p| p.contains("\"1.8.0\" twice")));
        assert!(checked(&format!("address = \"{}\"", "1".repeat(33)))[0].contains("longer than the 32"));
    }

    #[test]
    fn programming_mode_and_profiles_are_checked_too() {
        let good = "access = \"programming\"\nvalues = [\"1.8.0\"]\npassword_file = \"/etc/weir/secret\"\n\
            force_baud = 2400\nsign_on = [\"/1Bla0!\", \"MSY12!\"]\n\
            load_profile = { id = \"P.01\", command = \"R6\", records = 8 }";
        assert_eq!(checked(good), Vec::<String>::new());
        for (wrong, named) in [
            ("access = \"programming\"", "values is empty"),
            ("password_file = \"secret\"", "absolute"),
            ("password_file = \"/secret\"", "not used"),
            ("force_baud = 1000", "force_baud is 1000"),
            ("sign_on = [\"/?1\"]", "no text such as"),
            ("session_timeout = \"0s\"", "session_timeout is zero"),
            ("load_profile = { id = \"P(\" }", "such as \"P.01\""),
            ("load_profile = { id = \"P.01\", records = 8 }", "R5 sends"),
        ] {
            let found = checked(wrong);
            assert!(found.len() == 1 && found[0].contains(named), "{wrong}: {found:?}");
        }
    }
}
