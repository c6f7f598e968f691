//! Pages of a list, for every service alike.
//!
//! A token is the number of items that earlier pages gave. Must not know: how a service calls its
//! token, how large its pages are and in which words it refuses one.

/// Up to `size` of `items` from where `token` says, and the token of the next page when there is one.
/// An empty token is none. None when the token was never given out.
pub(super) fn page<T>(
    items: Vec<T>,
    token: Option<&str>,
    size: usize,
) -> Option<(Vec<T>, Option<String>)> {
    let start: usize = match token.filter(|token| !token.is_empty()) {
        None => 0,
        Some(token) => token.parse().ok()?,
    };
    let end = start.saturating_add(size);
    let next = (end < items.len()).then(|| end.to_string());
    Some((items.into_iter().take(end).skip(start).collect(), next))
}

#[cfg(test)]
mod tests {
    use super::page;

    #[test]
    fn pages_follow_each_other_without_loss() {
        let items: Vec<u32> = (0..5).collect();
        for size in [1, 2, 4, 5, 6, usize::MAX] {
            let (mut seen, mut token) = (Vec::new(), Some(String::new()));
            while token.is_some() {
                let (page, next) = page(items.clone(), token.as_deref(), size).unwrap();
                assert!(page.len() <= size);
                seen.extend(page);
                token = next;
            }
            assert_eq!(seen, items, "pages of {size}");
        }
    }

    #[test]
    fn a_token_of_nobody_is_told_from_one_behind_the_end() {
        assert_eq!(page(vec![1, 2], Some("later"), 1), None);
        assert_eq!(page(vec![1, 2], Some("-1"), 1), None);
        // The list became shorter in between.
        assert_eq!(page(vec![1, 2], Some("7"), 1), Some((Vec::new(), None)));
    }
}
