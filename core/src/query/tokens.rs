//! A query's text as tokens.

use super::QueryError;

/// One token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A word; keywords are words too.
    Word(String),
    /// A column's name in double quotes.
    Quoted(String),
    Number(f64),
    Text(String),
    Sign(&'static str),
    End,
}

const SIGNS: [&str; 18] =
    ["<>", "<=", ">=", "!=", "==", "=", "<", ">", "+", "-", "*", "/", "%", "(", ")", ",", ";", "||"];

fn failed(at: usize, what: impl Into<String>, remedy: &str) -> QueryError {
    QueryError { at, what: what.into(), remedy: remedy.to_owned() }
}

/// The tokens, each with the character where it begins, and an end.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, QueryError> {
    let chars: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        let (at, c) = (i, chars[i]);
        if c.is_whitespace() {
            i += 1;
        } else if c == '-' && chars.get(i + 1) == Some(&'-') {
            while i < chars.len() && chars[i] != '\n' {
                i += 1;
            }
        } else if c.is_alphabetic() || c == '_' {
            while i < chars.len() && (chars[i].is_alphanumeric() || chars[i] == '_' || chars[i] == '.') {
                i += 1;
            }
            found.push((at, Token::Word(chars[at..i].iter().collect())));
        } else if c.is_ascii_digit() || (c == '.' && chars.get(i + 1).is_some_and(char::is_ascii_digit)) {
            i = number_end(&chars, i);
            let digits: String = chars[at..i].iter().filter(|c| **c != '_').collect();
            let number = digits.parse::<f64>().ok().filter(|n| n.is_finite());
            let number = number.ok_or_else(|| failed(at, format!("{digits:?} is no number"), "write it like 1.5e3"))?;
            found.push((at, Token::Number(number)));
        } else if c == '\'' || c == '"' {
            let mut inside = String::new();
            i += 1;
            loop {
                match chars.get(i) {
                    // A quote inside is written twice.
                    Some(q) if *q == c && chars.get(i + 1) == Some(&c) => {
                        inside.push(c);
                        i += 2;
                    }
                    Some(q) if *q == c => break,
                    Some(other) => {
                        inside.push(*other);
                        i += 1;
                    }
                    None => {
                        return Err(failed(at, "a quote does not end", "close it; a quote inside is written twice"));
                    }
                }
            }
            i += 1;
            found.push((at, if c == '\'' { Token::Text(inside) } else { Token::Quoted(inside) }));
        } else {
            let rest: String = chars[i..chars.len().min(i + 2)].iter().collect();
            let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign));
            let remedy = "texts stand in 'single' and odd column names in \"double\" quotes";
            let sign = sign.ok_or_else(|| failed(at, format!("{c:?} means nothing here"), remedy))?;
            i += sign.len();
            found.push((at, Token::Sign(sign)));
        }
    }
    found.push((chars.len(), Token::End));
    Ok(found)
}

fn number_end(chars: &[char], mut i: usize) -> usize {
    while let Some(c) = chars.get(i) {
        let sign = matches!(c, '+' | '-') && matches!(chars.get(i.wrapping_sub(1)), Some('e' | 'E'));
        if !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_') || sign) {
            break;
        }
        i += 1;
    }
    i
}
