//! Which image a name means. The rule is the same for the store, the cluster and the HTTP API.

use crate::ImageReference;

/// What a name means among several images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meant<T> {
    /// No image.
    None,
    /// The image of that target, or the only one of that original.
    One(T),
    /// Several images of that original.
    Several(Vec<T>),
}

/// A reference written out, so that short and long forms are the same; as it stands where it is not a
/// valid reference.
#[must_use]
pub fn normalised(reference: &str) -> String {
    let parsed = reference.parse::<ImageReference>();
    parsed.map_or_else(|_| reference.to_owned(), |parsed| parsed.to_string())
}

/// What `name` means: the image of that target, else those of that original. `names` gives an image's
/// original and target.
#[must_use]
pub fn meant<T>(
    name: &str,
    images: impl IntoIterator<Item = T>,
    names: impl for<'a> Fn(&'a T) -> (&'a str, &'a str),
) -> Meant<T> {
    let wanted = normalised(name);
    let mut of_original = Vec::new();
    for image in images {
        let (original, target) = names(&image);
        if normalised(target) == wanted {
            return Meant::One(image);
        }
        if normalised(original) == wanted {
            of_original.push(image);
        }
    }
    match of_original.len() {
        0 => Meant::None,
        1 => of_original.pop().map_or(Meant::None, Meant::One),
        _ => Meant::Several(of_original),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_target_else_the_only_one_of_the_original() {
        let images = [
            ("nginx", "r.io/nginx:fast"),
            ("docker.io/library/redis:latest", "r.io/redis:a"),
            ("redis", "r.io/redis:b"),
            ("r.io/redis:b", "r.io/redis:c"),
            ("no reference", "neither one"),
        ];
        let meant = |name: &str| meant(name, images, |(original, target)| (original, target));
        for name in ["r.io/nginx:fast", "docker.io/library/nginx"] {
            assert_eq!(meant(name), Meant::One(images[0]), "{name}");
        }
        assert_eq!(meant("redis"), Meant::Several(vec![images[1], images[2]]));
        assert_eq!(
            meant("r.io/redis:b"),
            Meant::One(images[2]),
            "targets first"
        );
        assert_eq!(meant("no reference"), Meant::One(images[4]));
        assert_eq!(meant("mongo"), Meant::None);
    }
}
