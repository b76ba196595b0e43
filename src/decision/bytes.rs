//! Which bytes may stand where, looked up in one table.

/// In the words of a permission, and in the types of a resource.
pub const WORD: u8 = 1;
/// In the ids of a resource.
pub const ID: u8 = 2;
/// In the ids of a resource, as part of a letter beyond ASCII, which is looked at as a whole.
pub const WIDE: u8 = 4;

static CLASSES: [u8; 256] = {
    let mut classes = [WIDE; 256];
    let mut byte = 0;
    while byte < 0x80 {
        classes[byte as usize] = match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => WORD | ID,
            b'A'..=b'Z' | b'.' | b'~' | b':' | b'@' | b'=' | b'+' => ID,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

/// How many bytes of the text, from its beginning, may stand where this class may.
#[must_use]
pub fn run(text: &[u8], class: u8) -> usize {
    let ends = |byte: &u8| CLASSES[usize::from(*byte)] & class == 0;
    text.iter().position(ends).unwrap_or(text.len())
}
