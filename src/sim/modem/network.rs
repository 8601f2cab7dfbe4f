//! The simulated modem's network: signal, registration, operator.

use super::{Answer, End, Modem, end, ok};

const AREA: &str = "00C3";
const CELL: &str = "0001A2B3";

impl Modem {
    pub(super) fn network_command(&mut self, name: &str, rest: &str) -> Option<Answer> {
        let value = rest.trim_start_matches('=');
        Some(match (name, rest) {
            ("+CSQ", "") => ok(format!("+CSQ: {},99", self.make.csq)),
            ("+CSQ", "=?") => ok("+CSQ: (0-31,99),(0-7,99)"),
            ("+CESQ", "") => ok("+CESQ: 99,99,255,255,20,46"),
            ("+CREG" | "+CGREG" | "+CEREG", "?") => self.registration(name),
            ("+CREG" | "+CGREG" | "+CEREG", "=?") => ok(format!("{name}: (0-2)")),
            ("+CREG" | "+CGREG" | "+CEREG", _) => match (value.parse(), self.mode_of(name)) {
                (Ok(mode @ 0..=2), Some(own)) => {
                    *own = mode;
                    end(End::Ok)
                }
                _ => end(End::Equipment(3)),
            },
            ("+COPS", "?") => ok(self.operator()),
            ("+COPS", "=?") => {
                ok("+COPS: (2,\"Movistar\",\"MOVI\",\"21407\",7),(1,\"Other\",\"OTH\",\"21401\",7),,(0-4),(0-2)")
            }
            ("+COPS", _) => self.select(value),
            ("+CNUM", "") => ok("+CNUM: \"\",\"+34600000001\",145"),
            ("+CGATT", "?") => ok("+CGATT: 1"),
            _ => return None,
        })
    }

    fn mode_of(&mut self, name: &str) -> Option<&mut u8> {
        let at = ["+CREG", "+CGREG", "+CEREG"].iter().position(|known| *known == name)?;
        self.volatile.creg.get_mut(at)
    }

    fn registration(&mut self, name: &str) -> Answer {
        let mode = self.mode_of(name).map_or(0, |mode| *mode);
        let state = if self.volatile.registered && self.is_unlocked() { self.make.registration } else { 0 };
        let is_in = matches!(state, 1 | 5);
        ok(if mode == 2 && is_in {
            format!("{name}: 2,{state},\"{AREA}\",\"{CELL}\",7")
        } else {
            format!("{name}: {mode},{state}")
        })
    }

    fn operator(&self) -> String {
        if !self.volatile.registered || !matches!(self.make.registration, 1 | 5) {
            return "+COPS: 0".to_owned();
        }
        let format = self.volatile.cops_format;
        let name = if format == 2 { "21407" } else { &self.make.operator };
        format!("+COPS: 0,{format},\"{name}\",7")
    }

    fn select(&mut self, value: &str) -> Answer {
        match value.split_once(',') {
            Some(("3", format)) => self.volatile.cops_format = format.parse().unwrap_or(0),
            _ if value == "2" => self.volatile.registered = false,
            _ => self.volatile.registered = true,
        }
        end(End::Ok)
    }
}
