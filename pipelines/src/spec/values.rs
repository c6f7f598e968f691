//! Which texts are a path, a repository, an address or a name in AWS: the checks behind single values.
//!
//! Each answers with what is wrong in words that follow the value, `\`../x\` leaves the repository`.

/// A path inside the repository, without `./` before or `/` behind; `.` is the root itself.
///
/// # Errors
/// What is wrong with it.
pub(super) fn path(text: &str) -> Result<String, &'static str> {
    if text.starts_with('/') {
        return Err("is absolute, write it relative to the repository");
    }
    if text.contains('\\') {
        return Err("holds a backslash, write `/` between directories");
    }
    if text.chars().any(char::is_control) {
        return Err("holds a control character");
    }
    if text.split('/').any(|part| part == "..") {
        return Err("leaves the repository, `..` is not allowed");
    }
    let parts: Vec<&str> = text
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    Ok(if parts.is_empty() {
        ".".to_owned()
    } else {
        parts.join("/")
    })
}

/// A path inside the repository that names a file.
///
/// # Errors
/// What is wrong with it.
pub(super) fn file_path(text: &str) -> Result<String, &'static str> {
    let path = path(text)?;
    if path == "." || text.ends_with('/') {
        Err("is a directory, not a file")
    } else {
        Ok(path)
    }
}

/// A path of a file, seen from a folder inside the repository: it may begin with `../`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn file_path_from_folder(text: &str) -> Result<String, &'static str> {
    let mut rest = text;
    let mut above = String::new();
    while let Some(below) = rest.strip_prefix("../") {
        above.push_str("../");
        rest = below;
    }
    match file_path(rest) {
        Err(_) if !above.is_empty() && rest.starts_with('/') => {
            Err("has a `//` behind `..`, write one `/`")
        }
        Err(_) if rest.split('/').any(|part| part == "..") => {
            Err("has a `..` in its middle, write each at its beginning")
        }
        checked => Ok(above + &checked?),
    }
}

/// A repository within a registry, as ECR names them: `shop/api`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn repository(text: &str) -> Result<String, &'static str> {
    if text.contains([':', '@']) {
        return Err("names a host, tag or digest; write the repository alone, like `shop/api`");
    }
    let letter_or_digit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let part_is_fine = |part: &str| {
        let allowed = part
            .bytes()
            .all(|byte| letter_or_digit(byte) || b"._-".contains(&byte));
        let bounded = part.bytes().next().is_some_and(letter_or_digit)
            && part.bytes().next_back().is_some_and(letter_or_digit);
        allowed && bounded
    };
    if !(2..=256).contains(&text.len()) || !text.split('/').all(part_is_fine) {
        return Err(
            "is no repository: use 2 to 256 of a-z, 0-9, `.`, `_`, `-` and `/` between parts",
        );
    }
    Ok(text.to_owned())
}

/// The image of a container, `rust:1.95-slim`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn container_image(text: &str) -> Result<String, &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    let begins_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if text.len() > 512 || !begins_well || !text.bytes().all(allowed) {
        return Err("is no reference to an image, write it like `rust:1.95-slim`");
    }
    Ok(text.to_owned())
}

/// A label of a runner, `gpu`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn label(text: &str) -> Result<String, &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/=-".contains(&byte);
    if text.len() > 64 || text.is_empty() || !text.bytes().all(allowed) {
        return Err("is no label: use 1 to 64 letters, digits, `.`, `_`, `:`, `/`, `=` and `-`");
    }
    Ok(text.to_owned())
}

/// A cluster, service or container in ECS.
///
/// # Errors
/// What is wrong with it.
pub(super) fn ecs_name(text: &str) -> Result<String, &'static str> {
    if text.starts_with("arn:") {
        return Err("is an ARN, write the name alone");
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if text.len() > 255 || text.is_empty() || !text.bytes().all(allowed) {
        return Err("is no name in ECS: use 1 to 255 letters, digits, `-` and `_`");
    }
    Ok(text.to_owned())
}

/// A service in ECS, with `{service}` for the name in the file.
///
/// # Errors
/// What is wrong with it.
pub(super) fn ecs_service(text: &str) -> Result<String, &'static str> {
    let rest = text.replace(super::SERVICE_PLACEHOLDER, "x");
    if rest.contains(['{', '}']) {
        return Err("holds a placeholder that does not exist, only `{service}` does");
    }
    ecs_name(&rest).map(|_| text.to_owned())
}

/// A Region, `eu-west-1`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn region(text: &str) -> Result<String, &'static str> {
    let parts: Vec<&str> = text.split('-').collect();
    let lower = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
    let number = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    match parts.split_last() {
        Some((last, words)) if words.len() >= 2 && words.iter().all(lower) && number(last) => {
            Ok(text.to_owned())
        }
        _ => Err("is no Region, write it like `eu-west-1`"),
    }
}

/// An address that can be asked over HTTP.
///
/// # Errors
/// What is wrong with it.
pub(super) fn address(text: &str) -> Result<String, &'static str> {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let Some(rest) = rest else {
        return Err("is no address, it begins with `https://` or `http://`");
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("holds a user name or password, which would be shown to everybody");
    }
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    if host.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("is no address, write it like `https://shop.example/healthz`");
    }
    Ok(text.to_owned())
}

/// A path on a host, `/healthz`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn health_path(text: &str) -> Result<String, &'static str> {
    if !text.starts_with('/') || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("is no path on a host, write it like `/healthz`");
    }
    Ok(text.to_owned())
}

/// The id of a subnet, `subnet-0a1b`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn subnet(text: &str) -> Result<String, &'static str> {
    id(text, "subnet-").ok_or("is no subnet, write its id like `subnet-0a1b2c3d4e5f67890`")
}

/// The id of a security group, `sg-0a1b`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn security_group(text: &str) -> Result<String, &'static str> {
    id(text, "sg-").ok_or("is no security group, write its id like `sg-0a1b2c3d4e5f67890`")
}

fn id(text: &str, prefix: &str) -> Option<String> {
    let rest = text.strip_prefix(prefix)?;
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    ((1..=64).contains(&rest.len()) && rest.bytes().all(allowed)).then(|| text.to_owned())
}

/// An ARN, of anything.
///
/// # Errors
/// What is wrong with it.
pub(super) fn arn(text: &str) -> Result<String, &'static str> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let is_arn = match parts[..] {
        ["arn", partition, service, region, account, resource] => {
            let words = [partition, service, region, account];
            let allowed = |byte: u8| word(byte) || b":/.+=@".contains(&byte);
            words.iter().all(|part| part.bytes().all(word))
                && !resource.is_empty()
                && resource.bytes().all(allowed)
        }
        _ => false,
    };
    if is_arn && text.len() <= 2048 {
        Ok(text.to_owned())
    } else {
        Err("is no ARN, write it whole like `arn:aws:elasticloadbalancing:eu-west-1:…`")
    }
}

/// A namespace of Cloud Map, by name or ARN.
///
/// # Errors
/// What is wrong with it.
pub(super) fn namespace(text: &str) -> Result<String, &'static str> {
    if text.starts_with("arn:") {
        return arn(text);
    }
    host(text).map_err(|_| "is no namespace, write its name or its ARN")
}

/// A host's name.
///
/// # Errors
/// What is wrong with it.
pub(super) fn host(text: &str) -> Result<String, &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !(1..=127).contains(&text.len()) || !text.bytes().all(allowed) {
        return Err("is no name of a host: use 1 to 127 letters, digits, `-`, `_` and `.`");
    }
    Ok(text.to_owned())
}

/// Any text without control characters other than line breaks and tabs.
///
/// # Errors
/// What is wrong with it.
pub(super) fn script(text: &str) -> Result<String, &'static str> {
    if text
        .chars()
        .any(|c| c.is_control() && !matches!(c, '\n' | '\t'))
    {
        return Err("holds a control character");
    }
    Ok(text.to_owned())
}

/// A stage of a Dockerfile.
///
/// # Errors
/// What is wrong with it.
pub(super) fn stage(text: &str) -> Result<String, &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if text.len() > 255 || !text.bytes().all(allowed) {
        return Err("is no stage of a Dockerfile: use letters, digits, `.`, `_` and `-`");
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside_and_lose_their_trimmings() {
        for (text, expected) in [
            (".", "."),
            ("./", "."),
            ("./a/", "a"),
            ("a//b", "a/b"),
            ("a/./b", "a/b"),
            ("..a", "..a"),
        ] {
            assert_eq!(path(text).as_deref(), Ok(expected), "{text}");
        }
        for text in [
            "/", "/a", "..", "a/..", "a/../b", "../a", "a\\b", "a\0b", "a\nb",
        ] {
            assert!(path(text).is_err(), "{text}");
        }
        assert!(file_path("a/").is_err());
        assert!(file_path(".").is_err());
        assert_eq!(file_path("./Dockerfile").as_deref(), Ok("Dockerfile"));
        let from_folder = |text| file_path_from_folder(text).ok();
        for (text, expected) in [
            ("./Dockerfile", Some("Dockerfile")),
            ("../../docker//web", Some("../../docker/web")),
            ("../a/../b", None),
            ("./../a", None),
            ("..//a", None),
            ("..", None),
            ("../", None),
            ("/a", None),
        ] {
            assert_eq!(from_folder(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn repositories_are_what_ecr_takes() {
        for text in ["shop", "shop/api", "a1/b-c/d_e.f"] {
            assert!(repository(text).is_ok(), "{text}");
        }
        for text in [
            "s",
            "Shop",
            "/shop",
            "shop/",
            "a//b",
            "-a",
            "a-",
            "shop:1",
            "h.example:5000/a",
            "a@b",
        ] {
            assert!(repository(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_in_aws() {
        for text in ["eu-west-1", "us-gov-east-1", "ap-southeast-2"] {
            assert!(region(text).is_ok(), "{text}");
        }
        for text in ["eu", "eu-west", "eu-west-1a", "EU-west-1", "eu--1", ""] {
            assert!(region(text).is_err(), "{text}");
        }
        assert!(ecs_service("shop-{service}").is_ok());
        for text in [
            "shop-{env}",
            "shop-{service",
            "a b",
            "arn:aws:ecs:eu-west-1:1:service/a",
        ] {
            assert!(ecs_service(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ids_and_arns() {
        let group = "arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/shop/73e2";
        for text in [
            group,
            "arn:aws-cn:a:::b",
            "arn:aws:servicediscovery:eu-west-1:1:service/srv-a",
        ] {
            assert!(arn(text).is_ok(), "{text}");
        }
        for text in [
            "arn:aws:a::b",
            "targetgroup/shop",
            "arn:aws:a:b:c:",
            "arn:aws:a:b:c:d e",
            "arn:a/b:a:b:c:d",
        ] {
            assert!(arn(text).is_err(), "{text}");
        }
        assert!(subnet("subnet-0a1b").is_ok());
        assert!(security_group("sg-0a1b").is_ok());
        for text in ["subnet-", "sg-1", "subnet-A", "0a1b"] {
            assert!(subnet(text).is_err(), "{text}");
        }
        assert!(namespace("shop.internal").is_ok());
        assert!(namespace(group).is_ok());
        assert!(namespace("arn:shop").is_err());
    }

    #[test]
    fn addresses_name_a_host_and_no_password() {
        for text in [
            "https://shop.example/healthz",
            "http://127.0.0.1:8080",
            "https://a?b=@",
        ] {
            assert!(address(text).is_ok(), "{text}");
        }
        for text in [
            "shop.example",
            "ftp://a",
            "https://",
            "https:///x",
            "http://:80/",
            "https://u:p@a/",
            "https://a b",
        ] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
