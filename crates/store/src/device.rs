//! Which pack a device of an index stands for: pure.

use uimgacc_erofs::tree::Device;
use uimgacc_types::PackId;

/// A device's tag.
pub(crate) fn tag(text: &str) -> [u8; 64] {
    let mut tag = [0; 64];
    for (to, from) in tag.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    tag
}

/// The pack that is still being written which a device stands for.
pub(crate) fn open_slot(device: &Device) -> Option<usize> {
    let text = std::str::from_utf8(&device.tag).ok()?;
    text.trim_end_matches('\0')
        .strip_prefix("open-")?
        .parse()
        .ok()
}

/// The pack that a device of an index stands for.
#[must_use]
pub fn pack_of(device: &Device) -> Option<PackId> {
    PackId::from_hex(std::str::from_utf8(&device.tag).ok()?).ok()
}
