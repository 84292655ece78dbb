//! However a stream is cut into reads, its lines are the same, and none is lost.
#![no_main]

use bytes::{Bytes, BytesMut};
use chatd::wire::{LineDecoder, LineError};
use libfuzzer_sys::fuzz_target;
use tokio_util::codec::Decoder;

const MAX_LINE_BYTES: usize = 40;

type Line = Result<Vec<u8>, LineError>;

/// A line as it is compared: how much of another protocol's first line has come when it is told does not matter.
fn compared(line: Result<Bytes, LineError>) -> Line {
    match line {
        Ok(line) => Ok(line.to_vec()),
        Err(LineError::Foreign(_)) => Err(LineError::Foreign(None)),
        Err(error) => Err(error),
    }
}

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (cuts, stream) = input;
    let whole = read(&[&stream]);
    let mut pieces = Vec::new();
    let mut rest = stream.as_slice();
    for cut in cuts {
        let (piece, behind) = rest.split_at(usize::from(cut).min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    pieces.push(rest);
    assert_eq!(read(&pieces), whole, "cut into {pieces:?}");
    for line in whole.iter().flatten() {
        assert!(line.len() <= MAX_LINE_BYTES && !line.contains(&b'\n'));
    }
});

/// The lines of a stream that comes in these pieces.
fn read(pieces: &[&[u8]]) -> Vec<Line> {
    let mut decoder = LineDecoder::new(MAX_LINE_BYTES);
    let (mut buffer, mut lines) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while let Ok(Some(line)) = decoder.decode(&mut buffer) {
            lines.push(compared(line));
        }
        assert!(
            buffer.len() <= MAX_LINE_BYTES + 1,
            "a line without end is held"
        );
    }
    while let Ok(Some(line)) = decoder.decode_eof(&mut buffer) {
        lines.push(compared(line));
    }
    lines
}
