// Links between pages. Streamlit's own links write the old page's URL without its settings into the browser's history
// before the new page's URL, so that Back does not return to the page as it was. Here the URL changes once, and Streamlit
// follows as it follows Back and Forward. Links also stay in the page's project, keep an embedded page embedded, and
// close a sidebar that covers the page.
//
// Streamlit follows with a delay: the server's message about the previous page may arrive after a click. Streamlit then
// writes that page's path as a new entry, or that page's settings after the new page's path. So once a link (or Back) has
// opened a page, Streamlit's writes count only for the page that it shows; late settings are restored when Back returns
// to their page. Code that opens a page calls the original functions of History.
(() => {
  const board = new URL("./", location.href);
  const KEPT = ["project", "embed", "embed_options"]; // settings of all pages
  const NARROW = 768; // pixels below which Streamlit lays the sidebar over the page

  const pageLink = (event) => {
    const link = event.composedPath().find((node) => node instanceof HTMLAnchorElement);
    if (!link || link.origin !== board.origin || link.hasAttribute("disabled")) return null;
    if (!link.pathname.startsWith(board.pathname) || link.getAttribute("href").startsWith("#")) return null;
    return /^\w*$/.test(link.pathname.slice(board.pathname.length)) ? link : null;
  };

  const keepSettings = (event) => {
    const link = pageLink(event);
    if (!link) return null;
    const target = new URL(link.href);
    const now = new URLSearchParams(location.search);
    for (const name of KEPT.filter((name) => !target.searchParams.has(name)))
      for (const value of now.getAll(name)) target.searchParams.append(name, value);
    if (target.href !== link.href) link.href = target;
    return link;
  };

  const closeSidebar = () => {
    const button = document.querySelector('[data-testid="stSidebarCollapseButton"] button');
    if (button && innerWidth < NARROW) button.click();
  };

  const open = (event) => {
    const link = keepSettings(event);
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    if (link.target && link.target !== "_self") return;
    const isInSidebar = link.dataset.testid === "stSidebarNavLink";
    if (isInSidebar) closeSidebar();
    if (isInSidebar && link.pathname === location.pathname) return; // Streamlit reruns the page with its settings
    event.preventDefault();
    event.stopPropagation();
    left = location.href;
    if (link.href !== left) History.prototype.pushState.call(history, {}, "", link.href);
    dispatchEvent(new PopStateEvent("popstate"));
  };

  let led = false; // whether a page was opened in the browser
  let left = null; // the URL that the last link left
  let late = null; // that URL, with the settings that it should have had

  const shown = () => {
    const link = document.querySelector('[data-testid="stSidebarNavLink"][aria-current="page"]');
    return link ? link.pathname : location.pathname; // the Run page has no link in the sidebar
  };

  const write = (name) => (state, unused, address) => {
    const target = new URL(address ?? "", location.href);
    const isOfThisPage = target.pathname === location.pathname;
    if (!led || (isOfThisPage && shown() === location.pathname)) {
      History.prototype[name].call(history, state, unused, address);
    } else if (isOfThisPage) {
      if (left && new URL(left).pathname === shown()) late = { left, address: shown() + target.search };
      setTimeout(() => dispatchEvent(new PopStateEvent("popstate"))); // Streamlit took the settings for this page's
    }
  };
  history.pushState = write("pushState");
  history.replaceState = write("replaceState");

  const follow = () => {
    led = true;
    if (late && location.href === late.left) {
      History.prototype.replaceState.call(history, {}, "", late.address);
      late = null;
    }
  };

  addEventListener("popstate", follow, true); // of Back, of the links here and of redirect.py
  addEventListener("pointerdown", keepSettings, true);
  addEventListener("click", open, true);
})();
