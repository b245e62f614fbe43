//! Tests that both dialects have to pass.

/// Makes of each of these functions, which take the dialect, a test for each.
macro_rules! in_both_dialects {
    ($($test:ident,)*) => {
        mod ged {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(dilated::Dialect::Ged).await;
            })*
        }
        mod dilated1 {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(dilated::Dialect::Dilated1).await;
            })*
        }
    };
}
pub(crate) use in_both_dialects;
