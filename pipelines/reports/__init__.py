"""Pages for people: self-contained HTML, readable offline, on a phone and in print."""
