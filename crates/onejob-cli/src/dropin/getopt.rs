//! Parses command lines as getopt_long(3) does: clusters of short options, attached or separate values,
//! unambiguous prefixes of long names. The first word that is not an option ends the options.

use std::ffi::{OsStr, OsString};

/// An option: its letter, its long name (or an empty string), and whether it takes a value.
pub(super) struct OptionSpec(pub(super) char, pub(super) &'static str, pub(super) bool);

/// The options in their order, each with its value, and the words after them.
pub(super) struct ParsedLine {
    pub(super) options: Vec<(char, Option<OsString>)>,
    pub(super) words: Vec<OsString>,
}

pub(super) fn parse(args: Vec<OsString>, specs: &[OptionSpec]) -> Result<ParsedLine, String> {
    let mut line = ParsedLine { options: Vec::new(), words: Vec::new() };
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let bytes = arg.as_encoded_bytes();
        if bytes == b"--" {
            break;
        } else if let Some(long) = bytes.strip_prefix(b"--") {
            line.options.push(long_option(long, &mut args, specs)?);
        } else if bytes.len() > 1 && bytes[0] == b'-' {
            short_options(&bytes[1..], &mut args, specs, &mut line.options)?;
        } else {
            line.words.push(arg);
            break;
        }
    }
    line.words.extend(args);
    Ok(line)
}

fn long_option(
    text: &[u8],
    args: &mut impl Iterator<Item = OsString>,
    specs: &[OptionSpec],
) -> Result<(char, Option<OsString>), String> {
    let at = text.iter().position(|byte| *byte == b'=');
    let (name, attached) = (&text[..at.unwrap_or(text.len())], at.map(|at| &text[at + 1..]));
    let name = String::from_utf8_lossy(name);
    let matches = |option: &&OptionSpec| !option.1.is_empty() && option.1.starts_with(&*name);
    let found: Vec<_> = specs.iter().filter(matches).collect();
    let exact = found.iter().find(|option| option.1 == name).copied();
    let OptionSpec(letter, long, takes_value) = match (exact, &found[..]) {
        (Some(option), _) => option,
        (None, [option]) => *option,
        (None, []) => return Err(format!("unrecognized option '--{name}'")),
        (None, _) => return Err(format!("option '--{name}' is ambiguous")),
    };
    match (takes_value, attached) {
        (false, None) => Ok((*letter, None)),
        (false, Some(_)) => Err(format!("option '--{long}' doesn't allow an argument")),
        (true, Some(value)) => Ok((*letter, Some(os_string(value)))),
        (true, None) => match args.next() {
            Some(value) => Ok((*letter, Some(value))),
            None => Err(format!("option '--{long}' requires an argument")),
        },
    }
}

fn short_options(
    letters: &[u8],
    args: &mut impl Iterator<Item = OsString>,
    specs: &[OptionSpec],
    options: &mut Vec<(char, Option<OsString>)>,
) -> Result<(), String> {
    for (index, letter) in letters.iter().enumerate() {
        let letter = char::from(*letter);
        let rest = &letters[index + 1..];
        match specs.iter().find(|option| option.0 == letter) {
            None => return Err(format!("invalid option -- '{}'", letter.escape_debug())),
            Some(OptionSpec(_, _, false)) => options.push((letter, None)),
            Some(OptionSpec(_, _, true)) => {
                let value = if rest.is_empty() { args.next() } else { Some(os_string(rest)) };
                let value =
                    value.ok_or_else(|| format!("option requires an argument -- '{letter}'"))?;
                options.push((letter, Some(value)));
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The rest of an argument, after an ASCII character.
fn os_string(bytes: &[u8]) -> OsString {
    // SAFETY: `bytes` come from `as_encoded_bytes` of one argument, split right after an ASCII
    // character, where an OsStr may be split.
    unsafe { OsStr::from_encoded_bytes_unchecked(bytes) }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECS: [OptionSpec; 5] = [
        OptionSpec('k', "kill-after", true),
        OptionSpec('p', "preserve-status", false),
        OptionSpec('v', "verbose", false),
        OptionSpec('V', "version", false),
        OptionSpec('s', "", false),
    ];

    fn parsed(line: &str) -> Result<String, String> {
        let args = line.split(' ').filter(|word| !word.is_empty()).map(OsString::from);
        parse(args.collect(), &SPECS).map(|line| {
            let options = line.options.iter().map(|(letter, value)| match value {
                Some(value) => format!("{letter}={} ", value.to_string_lossy()),
                None => format!("{letter} "),
            });
            let words = line.words.iter().map(|word| format!("<{}>", word.to_string_lossy()));
            options.chain(words).collect()
        })
    }

    /// Valid command lines and the errors of invalid ones are those of getopt_long(3).
    #[test]
    fn agrees_with_getopt_long() {
        for (line, expected) in [
            ("", ""),
            ("-v -p 1 true -v", "v p <1><true><-v>"),
            ("-vpk5 1", "v p k=5 <1>"),
            ("-vk 5 1", "v k=5 <1>"),
            ("--kill-after=5 --kill 6 --kill= -- -v", "k=5 k=6 k= <-v>"),
            ("--verb --vers --preserve-status -", "v V p <->"),
            ("-- 1 -- 2", "<1><--><2>"),
            ("-k -v 1", "k=-v <1>"),
        ] {
            assert_eq!(parsed(line).as_deref(), Ok(expected), "{line}");
        }
        for (line, message) in [
            ("-x", "invalid option -- 'x'"),
            ("-vx", "invalid option -- 'x'"),
            ("--bogus", "unrecognized option '--bogus'"),
            ("--s", "unrecognized option '--s'"),
            ("--ver", "option '--ver' is ambiguous"),
            ("--verbose=1", "option '--verbose' doesn't allow an argument"),
            ("-k", "option requires an argument -- 'k'"),
            ("--kill", "option '--kill-after' requires an argument"),
        ] {
            assert_eq!(parsed(line).unwrap_err(), message, "{line}");
        }
    }

    /// Any line gives options that exist, and the words after them are the last of the line.
    #[test]
    #[cfg(target_os = "linux")]
    fn any_line_is_read_or_refused() {
        use std::os::unix::ffi::OsStringExt as _;
        let lines =
            ["-vpk5\n1", "--kill-after=5\n--kill\n6\n--kill=\n--\n-v", "-s\n\u{e9}\n-", "--ver"];
        let seeds: Vec<_> = lines.iter().map(|line| line.as_bytes().to_vec()).collect();
        testkit::fuzz::torture(&seeds, |bytes| {
            let words = bytes.split(|byte| *byte == b'\n');
            let words: Vec<_> = words.map(|word| OsString::from_vec(word.to_vec())).collect();
            let Ok(line) = parse(words.clone(), &SPECS) else { return };
            assert!(words.ends_with(&line.words));
            for (letter, value) in line.options {
                let spec = SPECS.iter().find(|spec| spec.0 == letter).expect("an option");
                assert_eq!(value.is_some(), spec.2, "-{letter}");
            }
        });
    }
}
