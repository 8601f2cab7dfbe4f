//! The fields of an answer such as `+COPS: 0,0,"Movistar",7`.

/// A field and whether it stood in quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its text without quotes and without blanks around it.
    pub text: String,
    /// Whether it stood in quotes.
    pub quoted: bool,
}

impl Field {
    /// The whole number it is.
    pub fn number<N: std::str::FromStr>(&self) -> Option<N> {
        self.text.parse().ok()
    }

    /// The text, when it is not empty.
    pub fn filled(&self) -> Option<&str> {
        Some(self.text.as_str()).filter(|text| !text.is_empty())
    }
}

/// More fields has no answer.
const MOST: usize = 64;

/// Takes the fields apart: commas between, quotes around those that have commas themselves.
pub fn fields(text: &str) -> Vec<Field> {
    let mut found = Vec::new();
    let (mut inside, mut quoted, mut word) = (false, false, String::new());
    for c in text.chars() {
        match c {
            '"' => {
                inside = !inside;
                quoted = true;
            }
            ',' if !inside && found.len() < MOST => {
                found.push(Field { text: word.trim().to_owned(), quoted });
                word.clear();
                quoted = false;
            }
            c => word.push(c),
        }
    }
    found.push(Field { text: word.trim().to_owned(), quoted });
    found
}

/// What stands behind `name` and a colon, e.g. `20,99` of `+CSQ: 20,99`.
pub fn after<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    Some(line.trim().strip_prefix(name)?.trim_start().strip_prefix(':')?.trim())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commas_in_quotes_belong_to_the_field() {
        let texts: Vec<_> =
            fields(r#"1,"REC READ","+34 6, 7",,"26/11/22,15:00:00+04""#).into_iter().map(|f| f.text).collect();
        assert_eq!(texts, ["1", "REC READ", "+34 6, 7", "", "26/11/22,15:00:00+04"]);
        assert_eq!(after("+CSQ: 20,99", "+CSQ"), Some("20,99"));
        assert_eq!(after("+CSQ:20,99", "+CSQ"), Some("20,99"));
        assert_eq!(after("+CSQX: 1", "+CSQ"), None);
    }

    proptest! {
        #[test]
        fn any_text_has_a_bounded_number_of_fields(text in any::<String>(), commas in 0usize..200) {
            let found = fields(&format!("{text}{}", ",".repeat(commas)));
            prop_assert!((1..=MOST + 1).contains(&found.len()));
        }
    }
}
