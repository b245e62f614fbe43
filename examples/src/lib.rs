//! Small programs that teach the `dilated` API, one file each.
