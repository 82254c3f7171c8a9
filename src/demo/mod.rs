//! A throwaway herd to look at: PostgreSQL servers of its own, a shop's rows, the proxy in front.
