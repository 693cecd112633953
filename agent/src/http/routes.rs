//! The paths. A new one is a row here and a function that answers it.

use hyper::header::{ACCEPT, HeaderMap};
use hyper::{Method, StatusCode};

use super::answer::Answer;
use super::{Site, health};
use crate::export::prometheus::negotiate;

/// A path, and what answers it.
pub(super) struct Route {
    path: &'static str,
    answer: fn(&Site, &HeaderMap) -> Answer,
}

/// Every path.
pub(super) const ROUTES: &[Route] = &[
    Route { path: "/livez", answer: livez },
    Route { path: "/readyz", answer: readyz },
    Route { path: "/metrics", answer: metrics },
];

/// Answers a request. Nothing is changed by any, so that only those methods are taken that ask.
pub(super) fn answer(site: &Site, method: &Method, path: &str, headers: &HeaderMap) -> Answer {
    let Some(route) = ROUTES.iter().find(|route| route.path == path) else {
        let known: Vec<&str> = ROUTES.iter().map(|route| route.path).collect();
        return Answer::text(StatusCode::NOT_FOUND, format!("not here; there are {}\n", known.join(", ")));
    };
    if method != Method::GET && method != Method::HEAD {
        return Answer::text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    }
    (route.answer)(site, headers)
}

fn livez(site: &Site, _headers: &HeaderMap) -> Answer {
    health::told(health::live(&site.status(), site.now_ns()))
}

fn readyz(site: &Site, _headers: &HeaderMap) -> Answer {
    health::told(health::ready(&site.status()))
}

fn metrics(site: &Site, headers: &HeaderMap) -> Answer {
    // Several headers of a name are one list; what is not ASCII asks for nothing.
    let accept: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = negotiate(&accept.join(","));
    Answer { status: StatusCode::OK, content_type: format.content_type(), body: site.metrics(format) }
}
