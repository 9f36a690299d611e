//! Command lines: one string, which the started program parses itself ("Parsing C++ command-line
//! arguments" on Microsoft Learn).

use std::{ffi::OsStr, iter, os::windows::ffi::OsStrExt as _};

const QUOTE: u16 = b'"' as u16;
const BACKSLASH: u16 = b'\\' as u16;

/// The command line of a program.
pub(super) fn of_program(program: &OsStr, args: &[impl AsRef<OsStr>]) -> Vec<u16> {
    let mut line = vec![QUOTE];
    line.extend(program.encode_wide());
    line.push(QUOTE);
    for arg in args {
        let arg = arg.as_ref();
        let is_plain = !arg.is_empty() && !arg.encode_wide().any(|c| c == 32 || c == 9);
        line.push(b' '.into());
        append(&mut line, arg, !is_plain, BACKSLASH);
    }
    line
}

/// The command line of the command processor that runs a batch file; `None` for arguments that cannot
/// be passed. The command processor expands variables and reads operators even between quotes, hence
/// the rules that std has since CVE-2024-24576.
pub(super) fn of_batch_file(script: &OsStr, args: &[impl AsRef<OsStr>]) -> Option<Vec<u16>> {
    let mut line: Vec<u16> = "cmd.exe /e:ON /v:OFF /d /c \"\"".encode_utf16().collect();
    if script.encode_wide().any(|c| c == QUOTE) || script.encode_wide().last() == Some(BACKSLASH) {
        return None;
    }
    line.extend(script.encode_wide());
    line.push(QUOTE);
    for arg in args {
        let text: Vec<u16> = arg.as_ref().encode_wide().collect();
        if text.iter().any(|c| [0, 10, 13].contains(c)) {
            return None;
        }
        let is_plain = |c: &u16| {
            let c = char::from_u32(u32::from(*c)).unwrap_or('x');
            !c.is_control()
                && (!c.is_ascii() || c.is_ascii_alphanumeric() || r"#$*+-./:?@\_".contains(c))
        };
        let plain =
            !text.is_empty() && text.iter().all(is_plain) && text.last() != Some(&BACKSLASH);
        line.push(b' '.into());
        append(&mut line, arg.as_ref(), !plain, QUOTE);
    }
    line.push(QUOTE);
    Some(line)
}

/// Backslashes are special only before a quote, where each is doubled; the quote itself is escaped by
/// `escape`. If `escape` is a quote, the reader is the command processor: an empty substring of a
/// variable that always exists keeps a percent sign from starting an expansion.
fn append(line: &mut Vec<u16>, arg: &OsStr, quoted: bool, escape: u16) {
    line.extend(quoted.then_some(QUOTE));
    let mut backslashes = 0;
    for c in arg.encode_wide() {
        if c == QUOTE {
            line.extend(iter::repeat_n(BACKSLASH, backslashes).chain([escape]));
        } else if c == u16::from(b'%') && escape == QUOTE {
            line.extend("%%cd:~,".encode_utf16());
        }
        backslashes = if c == BACKSLASH { backslashes + 1 } else { 0 };
        line.push(c);
    }
    if quoted {
        line.extend(iter::repeat_n(BACKSLASH, backslashes).chain([QUOTE]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(args: &[&str]) -> String {
        String::from_utf16(&of_program(OsStr::new("p q"), args)).unwrap()
    }

    fn batch(args: &[&str]) -> Option<String> {
        of_batch_file(OsStr::new(r"C:\a b.bat"), args)
            .map(|line| String::from_utf16(&line).unwrap())
    }

    /// Backslashes are doubled before a quote and nowhere else.
    #[test]
    fn backslashes_double_only_before_a_quote() {
        assert_eq!(program(&["a", "", r"a b\"]), r#""p q" a "" "a b\\""#);
        assert_eq!(program(&[r#"a\"b"#, r"\\host\x"]), r#""p q" a\\\"b \\host\x"#);
    }

    /// Nothing in an argument of a batch file is executed or expanded.
    #[test]
    fn batch_file_arguments_are_not_expanded() {
        let line = |args: &str| format!(r#"cmd.exe /e:ON /v:OFF /d /c ""C:\a b.bat" {args}""#);
        assert_eq!(batch(&["%PATH%"]), Some(line(r#""%%cd:~,%PATH%%cd:~,%""#)));
        assert_eq!(batch(&["a&b", "c"]), Some(line(r#""a&b" c"#)));
        assert_eq!(batch(&[r#"a"&b"#, r"x\"]), Some(line(r#""a""&b" "x\\""#)));
        assert_eq!(batch(&["a\nb"]), None);
        assert_eq!(batch(&["a\r"]), None);
        assert!(of_batch_file(OsStr::new("a\"b.bat"), &["x"]).is_none());
    }
}
