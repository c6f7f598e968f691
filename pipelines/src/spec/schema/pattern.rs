//! What a text has to look like: the patterns of the schema, in the language of ECMA-262.

pub(super) const NAME: &str = "^[a-z0-9][a-z0-9-]{0,62}$";
pub(super) const SECRET: &str = "^([a-z0-9][a-z0-9-]{0,62}/)?[A-Za-z_][A-Za-z0-9_]{0,63}$";
pub(super) const INPUT: &str = "^[a-z][a-z0-9_]{0,39}$";
pub(super) const CRON: &str = "^ *[^ ]+( +[^ ]+){4} *$";
pub(super) const BRANCH: &str = "^(?=.*[^\\s\\u0085])[^*?\\[!]+$";
pub(super) const LINE: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]{1,1000}$";
pub(super) const VARIABLE: &str = "^[A-Za-z_][A-Za-z0-9_]*$";
// U+0085 is a blank to Unicode, and none to ECMA-262.
pub(super) const TEXT: &str = "[^\\s\\u0085]";
pub(super) const PATH: &str =
    "^(?!/)(?!(.*/)?\\.\\.(/|$))(?=.*\\S)[^\\\\\\u0000-\\u001f\\u007f-\\u009f]+$";
pub(super) const CACHE_PATH: &str = "^(?!/)(?!(.*/)?\\.\\.(/|$))(?!(\\.?/)*\\.?$)(?=.*\\S)[^\\\\*?\\[\\]{}\\u0000-\\u001f\\u007f-\\u009f]+$";
pub(super) const FILE_PATH: &str = "^(?!/)(?!(.*/)?\\.\\.(/|$))(?!(\\.?/)*\\.?$)(?=.*\\S)[^\\\\\\u0000-\\u001f\\u007f-\\u009f]*[^/\\\\\\u0000-\\u001f\\u007f-\\u009f]$";
pub(super) const FILE_PATH_FROM_FOLDER: &str = "^(\\.\\./)*(?!/)(?!(.*/)?\\.\\.(/|$))(?!(\\.?/)*\\.?$)(?=.*\\S)[^\\\\\\u0000-\\u001f\\u007f-\\u009f]*[^/\\\\\\u0000-\\u001f\\u007f-\\u009f]$";
pub(super) const REPOSITORY: &str =
    "^(?=.{2,256}$)[a-z0-9]([a-z0-9._-]*[a-z0-9])?(/[a-z0-9]([a-z0-9._-]*[a-z0-9])?)*$";
pub(super) const CONTAINER_IMAGE: &str = "^([A-Za-z0-9]|\\{matrix\\.[a-z][a-z0-9_]{0,39}\\})([A-Za-z0-9._/:@-]|\\{matrix\\.[a-z][a-z0-9_]{0,39}\\}){0,511}$";
pub(super) const GROUP: &str =
    "^([A-Za-z0-9._/-]|\\{branch\\}|\\{matrix\\.[a-z][a-z0-9_]{0,39}\\}){1,100}$";
pub(super) const LABEL: &str = "^[A-Za-z0-9._:/=-]{1,64}$";
pub(super) const MATRIX_VALUE: &str = "^(?=.*[A-Za-z0-9])[^\\u0000-\\u001f\\u007f-\\u009f]{1,100}$";
pub(super) const STAGE: &str = "^[A-Za-z0-9._-]{1,255}$";
pub(super) const ECS_NAME: &str = "^[A-Za-z0-9_-]{1,255}$";
pub(super) const ECS_SERVICE: &str = "^([A-Za-z0-9_-]|\\{service\\}){1,255}$";
pub(super) const REGION: &str = "^[a-z]+(-[a-z]+)+-[0-9]+$";
pub(super) const SUBNET: &str = "^subnet-[a-z0-9]{1,64}$";
pub(super) const SECURITY_GROUP: &str = "^sg-[a-z0-9]{1,64}$";
pub(super) const ARN: &str = "^(?=.{1,2048}$)arn:([A-Za-z0-9_-]*:){4}[A-Za-z0-9_:/.+=@-]+$";
pub(super) const HOST: &str = "^[A-Za-z0-9_.-]{1,127}$";
pub(super) const ADDRESS: &str = "^https?://(?!:[^:/?#]*([/?#]|$))[^/?#@\\s\\u0000-\\u001f\\u007f-\\u009f]+([/?#][^\\s\\u0000-\\u001f\\u007f-\\u009f]*)?$";
pub(super) const HEALTH_PATH: &str = "^/[^\\s\\u0000-\\u001f\\u007f-\\u009f]*$";
pub(super) const SCRIPT: &str =
    "^(?=[\\s\\S]*\\S)[^\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f]*$";
pub(super) const GLOB: &str = "^!?(?![!/]|\\./)[\\s\\S]+$";
pub(super) const DURATION: &str = "^[0-9]+[smhd]$";
pub(super) const POSITIVE_DURATION: &str = "^0*[1-9][0-9]*[smhd]$";
